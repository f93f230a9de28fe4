"""Verifies a webhook with a foreign library: verify.py LIBRARY SECRET BODY ID TIMESTAMP SIGNATURE. Prints `good` or `bad`."""

import importlib
import sys

library, secret, body, message_id, timestamp, signature = sys.argv[1:]
module = importlib.import_module("standardwebhooks.webhooks" if library == "standardwebhooks" else "svix.webhooks")
headers = {"webhook-id": message_id, "webhook-timestamp": timestamp, "webhook-signature": signature}
try:
    module.Webhook(secret).verify(body, headers)
    print("good")
except module.WebhookVerificationError:
    print("bad")
