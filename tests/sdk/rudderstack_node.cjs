// Sends a visit, a sign-up and orders by @rudderstack/rudder-sdk-node, unpatched. Arguments: address, write key, user id, orders.
const RudderAnalytics = require('@rudderstack/rudder-sdk-node')

const [address, writeKey, userId, orders] = process.argv.slice(2)
const analytics = new RudderAnalytics(writeKey, { dataPlaneUrl: address, flushAt: 100, flushInterval: 200, gzip: true, logLevel: 'error' })

const anonymousId = 'visitor-of-' + userId
const failures = []
let open = Number(orders) + 5
const done = (error) => {
  if (error) failures.push(error)
  if (--open > 0) return
  failures.forEach((failure) => console.error(failure))
  process.exit(failures.length ? 1 : 0)
}
analytics.page({ anonymousId, category: 'shop', name: 'Home' }, done)
analytics.screen({ anonymousId, name: 'Home' }, done)
analytics.identify({ userId, anonymousId, traits: { country: 'DE', email: userId + '@post.example' } }, done)
analytics.group({ userId, groupId: 'club' }, done)
for (let number = 0; number < Number(orders); number++) {
  analytics.track({ userId, event: 'Order Completed', properties: { order_id: `${userId}-${number}`, total: 10 } }, done)
}
analytics.alias({ previousId: 'old-' + userId, userId }, done)
