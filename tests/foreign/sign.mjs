// Calls signed by the providers' own libraries, one JSON object a line: what our reader must believe.
import { createRequire } from "node:module";
import { createHash } from "node:crypto";
const require = createRequire(import.meta.url);

const [at] = process.argv.slice(2); // seconds since 1970
const text = '{"id":"1","text":"Ihre Punkte verfallen \u2013 \u60a8\u7684\u79ef\u5206"}\r\n';
const say = (call) => console.log(JSON.stringify(call));

const { Webhook } = require("standardwebhooks");
const { Webhook: SvixWebhook } = require("svix");
const secret = "whsec_" + Buffer.from("twenty-four random bytes").toString("base64");
for (const [prefix, Library] of [["webhook", Webhook], ["svix", SvixWebhook]]) {
  const signature = new Library(secret).sign("msg_1", new Date(at * 1000), text);
  const headers = { [`${prefix}-id`]: "msg_1", [`${prefix}-timestamp`]: at, [`${prefix}-signature`]: signature };
  say({ scheme: { scheme: "standard_webhooks", prefix }, secret, headers, body: text });
}

const { PrivateKey, Ecdsa } = require("starkbank-ecdsa");
const { EventWebhook } = require("@sendgrid/eventwebhook");
const ellipticcurve = require("starkbank-ecdsa");
const key = new PrivateKey(ellipticcurve.Curve?.prime256v1 ?? require("starkbank-ecdsa/ellipticcurve/curve").prime256v1);
const publicKey = key.publicKey().toPem().replace(/-----[^-]+-----|\s/g, "");
const signed = Ecdsa.sign(at + text, key).toBase64();
const webhook = new EventWebhook();
if (!webhook.verifySignature(webhook.convertPublicKeyToECDSA(publicKey), text, signed, at)) throw new Error("their own library refuses it");
say({
  scheme: { scheme: "sendgrid" }, secret: publicKey, body: text,
  headers: { "x-twilio-email-event-webhook-signature": signed, "x-twilio-email-event-webhook-timestamp": at },
});

const twilio = require("twilio");
const token = "an auth token";
const params = { MessageSid: "SM1", MessageStatus: "delivered", To: "+49 170 1", "Ümlaut": "ä&=+" };
const form = new URLSearchParams(params).toString();
for (const url of ["https://example.com/callbacks/sms/t?m=1", "https://example.com:8443/callbacks/sms/t?m=1&n=a%20b"]) {
  say({ scheme: { scheme: "twilio" }, secret: token, url, body: form, headers: { "x-twilio-signature": twilio.getExpectedTwilioSignature(token, url, params) } });
}
const named = "https://example.com:443/callbacks/sms/t?m=1";
say({ scheme: { scheme: "twilio" }, secret: token, url: "https://example.com/callbacks/sms/t?m=1", body: form, headers: { "x-twilio-signature": twilio.getExpectedTwilioSignature(token, named, params) } });
const hashed = `https://example.com/callbacks/sms/t?bodySHA256=${createHash("sha256").update(text).digest("hex")}`;
if (!twilio.validateRequestWithBody(token, twilio.getExpectedTwilioSignature(token, hashed, {}), hashed, text)) throw new Error("their own library refuses it");
say({ scheme: { scheme: "twilio" }, secret: token, url: hashed, body: text, headers: { "x-twilio-signature": twilio.getExpectedTwilioSignature(token, hashed, {}) } });
