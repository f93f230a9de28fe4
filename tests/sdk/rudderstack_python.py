"""Sends a visit, a sign-up and orders by rudder-sdk-python, unpatched. Arguments: address, write key, user id, orders."""

import sys

import rudderstack.analytics as analytics

address, key, user, orders = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
failures = []
analytics.write_key = key
analytics.dataPlaneUrl = address
analytics.gzip = True
analytics.max_retries = 5
analytics.on_error = lambda error, items: failures.append(error)

visitor = "visitor-of-" + user
analytics.page(anonymous_id=visitor, category="shop", name="Home")
analytics.screen(anonymous_id=visitor, name="Home")
analytics.identify(user_id=user, anonymous_id=visitor, traits={"country": "DE", "email": user + "@post.example"})
analytics.group(user_id=user, group_id="club")
for number in range(orders):
    analytics.track(user_id=user, event="Order Completed", properties={"order_id": f"{user}-{number}", "total": 10})
analytics.alias(previous_id="old-" + user, user_id=user)
analytics.shutdown()
sys.exit("\n".join(map(repr, failures)) if failures else 0)
