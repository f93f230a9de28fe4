// Sends a visit, a sign-up and orders by @segment/analytics-node, unpatched. Arguments: address, write key, user id, orders.
const { Analytics } = require('@segment/analytics-node')

const [address, writeKey, userId, orders] = process.argv.slice(2)
const failures = []
const analytics = new Analytics({ writeKey, host: address, flushAt: 100, maxRetries: 5 })
analytics.on('error', (error) => failures.push(error))

const anonymousId = 'visitor-of-' + userId
analytics.page({ anonymousId, category: 'shop', name: 'Home' })
analytics.screen({ anonymousId, name: 'Home' })
analytics.identify({ userId, anonymousId, traits: { country: 'DE', email: userId + '@post.example' } })
analytics.group({ userId, groupId: 'club' })
for (let number = 0; number < Number(orders); number++) {
  analytics.track({ userId, event: 'Order Completed', properties: { order_id: `${userId}-${number}`, total: 10 } })
}
analytics.alias({ previousId: 'old-' + userId, userId })
analytics.closeAndFlush({ timeout: 20000 }).then(() => {
  failures.forEach((error) => console.error(error))
  process.exit(failures.length ? 1 : 0)
})
