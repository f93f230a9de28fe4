//! Links that we hand out in messages and that come back to us from anywhere: whoever holds one may do the one thing that it is for,
//! about the one message that it was sent with, and nobody can make one up. Nothing of the person stands in them, nothing of
//! them is stored, and they do not expire: an unsubscribe link must work for as long as the mail can be read.
//!
//! A token is base64url (no padding) of `key id (4) | purpose (1) | message id (16) | HMAC-SHA256 over these (32)`. The key's id is the
//! head of its hash, so that a key can be replaced while links made with the one before still open.
//!
//! A return path ([`Links::return_path`]) cannot be a token: local parts have at most 64 characters, and some relays change their case.
//! It is hexadecimal, with half the signature.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::{digest, hmac};
use url::Url;

use crate::engine::action::MessageId;
use crate::settings::Secret;

/// Shorter keys can be guessed.
pub const KEY_BYTES_MIN: usize = 16;
const KEY_ID_BYTES: usize = 4;
const HEAD_BYTES: usize = KEY_ID_BYTES + 1 + 16;
/// What a return path keeps of the signature: 64 bits, to be guessed only by asking us.
const SHORT_HEX: usize = 16;

/// The one thing that a link is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// GET asks, POST acts (RFC 8058).
    Unsubscribe,
    /// The page of all that a person may choose.
    Preferences,
    /// Where a mail that cannot be delivered returns to (VERP).
    Return,
}

impl Purpose {
    fn byte(self) -> u8 {
        match self {
            Purpose::Unsubscribe => b'u',
            Purpose::Preferences => b'p',
            Purpose::Return => b'r',
        }
    }

    /// The first part of the path: `/u/TOKEN`.
    fn path(self) -> &'static str {
        match self {
            Purpose::Unsubscribe => "u",
            Purpose::Preferences => "p",
            Purpose::Return => "r",
        }
    }
}

/// Signs links and knows its own again.
#[derive(Clone)]
pub struct Links {
    /// Where this installation is seen from outside.
    public_url: Url,
    /// The first one signs, all are known again.
    keys: Vec<Key>,
}

#[derive(Clone)]
struct Key {
    id: [u8; KEY_ID_BYTES],
    key: hmac::Key,
}

/// Why links cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinksError {
    #[error("a key that signs links has {0} bytes; it needs at least {KEY_BYTES_MIN}, from a random source (`openssl rand -hex 32`)")]
    ShortKey(usize),
    #[error("no key signs links: give `secrets.links`")]
    NoKey,
    #[error("`{0}` is no address under which this installation is seen from outside, like `https://rekindle.shop.example`")]
    PublicUrl(Url),
}

impl Links {
    /// `keys`: the first one signs; links made with the others still open.
    ///
    /// # Errors
    /// There is no key, one is too short, or nothing can be appended to the address.
    pub fn new(public_url: Url, keys: &[Secret]) -> Result<Links, LinksError> {
        if public_url.cannot_be_a_base() || !matches!(public_url.scheme(), "http" | "https") {
            return Err(LinksError::PublicUrl(public_url));
        }
        let keys = keys.iter().map(|secret| Key::new(secret.reveal().as_bytes())).collect::<Result<Vec<_>, _>>()?;
        if keys.is_empty() { Err(LinksError::NoKey) } else { Ok(Links { public_url, keys }) }
    }

    /// `https://.../u/TOKEN`.
    pub fn url(&self, purpose: Purpose, message: MessageId) -> String {
        let base = self.public_url.as_str().trim_end_matches('/');
        format!("{base}/{}/{}", purpose.path(), self.sign(purpose, message))
    }

    pub fn sign(&self, purpose: Purpose, message: MessageId) -> String {
        let Some(key) = self.keys.first() else { return String::new() };
        let head = head(key, purpose, message);
        let mut token = head.to_vec();
        token.extend_from_slice(hmac::sign(&key.key, &head).as_ref());
        URL_SAFE_NO_PAD.encode(token)
    }

    /// The message that a token was made for; none: it is not one of ours, or for something else. Compared in constant time.
    pub fn verify(&self, purpose: Purpose, token: &str) -> Option<MessageId> {
        let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
        let (head, signature) = bytes.split_at_checked(HEAD_BYTES)?;
        let (key_id, rest) = head.split_at_checked(KEY_ID_BYTES)?;
        let key = self.keys.iter().find(|key| key.id == key_id)?;
        hmac::verify(&key.key, head, signature).ok()?;
        let (is_for, message) = rest.split_first()?;
        let message = u128::from_be_bytes(message.try_into().ok()?);
        (*is_for == purpose.byte()).then_some(MessageId(message))
    }

    /// Local part of the address to which a mail that cannot be delivered returns: 48 characters after `b-`.
    pub fn return_path(&self, message: MessageId) -> String {
        let signature = self.keys.first().map(|key| short(key, message)).unwrap_or_default();
        format!("b-{:032x}{signature}", message.0)
    }

    /// The message that a return path was made for, in whatever case it comes back.
    pub fn verify_return_path(&self, local_part: &str) -> Option<MessageId> {
        let lower = local_part.to_ascii_lowercase();
        let (id, signature) = lower.strip_prefix("b-")?.split_at_checked(32)?;
        let message = MessageId(u128::from_str_radix(id, 16).ok()?);
        // all keys are tried, without a word on which byte differs
        let is_ours = |key: &Key| {
            let expected = short(key, message);
            let differs = expected.bytes().zip(signature.bytes()).fold(0, |differs, (a, b)| differs | (a ^ b));
            differs == 0 && expected.len() == signature.len()
        };
        self.keys.iter().any(is_ours).then_some(message)
    }
}

impl std::fmt::Debug for Links {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Links({}, {} keys)", self.public_url, self.keys.len())
    }
}

impl Key {
    fn new(bytes: &[u8]) -> Result<Key, LinksError> {
        if bytes.len() < KEY_BYTES_MIN {
            return Err(LinksError::ShortKey(bytes.len()));
        }
        let mut id = [0; KEY_ID_BYTES];
        let hash = digest::digest(&digest::SHA256, bytes);
        id.iter_mut().zip(hash.as_ref()).for_each(|(to, from)| *to = *from);
        Ok(Key { id, key: hmac::Key::new(hmac::HMAC_SHA256, bytes) })
    }
}

fn head(key: &Key, purpose: Purpose, message: MessageId) -> [u8; HEAD_BYTES] {
    let mut head = [0; HEAD_BYTES];
    let bytes = key.id.into_iter().chain([purpose.byte()]).chain(message.0.to_be_bytes());
    head.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
    head
}

fn short(key: &Key, message: MessageId) -> String {
    let signature = hmac::sign(&key.key, &head(key, Purpose::Return, message));
    let mut hex: String = signature.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    hex.truncate(SHORT_HEX);
    hex
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGE: MessageId = MessageId(0x0190_0000_0000_7000_8000_0000_0000_0001);

    fn secret(text: &str) -> Secret {
        Secret::given(text)
    }

    fn links(keys: &[&str]) -> Links {
        let keys: Vec<Secret> = keys.iter().map(|key| secret(key)).collect();
        Links::new("https://rekindle.shop.example/".parse().expect("an address"), &keys).expect("links")
    }

    #[test]
    fn a_link_opens_what_it_is_for_and_nothing_else() {
        let links = links(&["0123456789abcdef"]);
        let url = links.url(Purpose::Unsubscribe, MESSAGE);
        let token = url.strip_prefix("https://rekindle.shop.example/u/").expect("the path of its purpose");
        assert_eq!(links.verify(Purpose::Unsubscribe, token), Some(MESSAGE));
        assert_eq!(links.verify(Purpose::Preferences, token), None);
        assert_eq!(links.sign(Purpose::Unsubscribe, MESSAGE), token, "no chance in it");
    }

    #[test]
    fn no_bit_of_a_token_may_be_changed() {
        let links = links(&["0123456789abcdef"]);
        let token = links.sign(Purpose::Unsubscribe, MESSAGE);
        let bytes = URL_SAFE_NO_PAD.decode(&token).expect("base64url");
        assert_eq!(bytes.len(), HEAD_BYTES + 32);
        for bit in 0..bytes.len() * 8 {
            let mut forged = bytes.clone();
            forged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(links.verify(Purpose::Unsubscribe, &URL_SAFE_NO_PAD.encode(forged)), None, "bit {bit}");
        }
        for forged in ["", "x", &token[1..], &token[..token.len() - 1], &format!("{token}A"), "\u{e4}\u{e4}"] {
            assert_eq!(links.verify(Purpose::Unsubscribe, forged), None, "{forged}");
        }
    }

    #[test]
    fn a_replaced_key_still_opens_its_links_and_a_removed_one_does_not() {
        let (old, new) = ("the old key, 32 bytes of chance..", "the new key, 32 bytes of chance..");
        let token = links(&[old]).sign(Purpose::Preferences, MESSAGE);
        assert_eq!(links(&[new, old]).verify(Purpose::Preferences, &token), Some(MESSAGE));
        assert_eq!(links(&[new]).verify(Purpose::Preferences, &token), None);
        assert_ne!(links(&[new, old]).sign(Purpose::Preferences, MESSAGE), token);
    }

    #[test]
    fn a_return_path_fits_an_address_and_survives_a_change_of_case() {
        let own = links(&["0123456789abcdef"]);
        let path = own.return_path(MESSAGE);
        assert!(path.len() <= 64, "{path}");
        assert_eq!(own.verify_return_path(&path.to_uppercase()), Some(MESSAGE));
        assert_eq!(links(&["another key of 16"]).verify_return_path(&path), None);
        for forged in ["", "b-", "b-12", "b-00", &path[..path.len() - 1], &format!("{path}0"), "b-\u{e4}"] {
            assert_eq!(own.verify_return_path(forged), None, "{forged}");
        }
    }

    #[test]
    fn keys_that_can_be_guessed_are_refused() {
        let url: Url = "https://rekindle.shop.example".parse().expect("an address");
        assert_eq!(Links::new(url.clone(), &[secret("short")]).expect_err("refused"), LinksError::ShortKey(5));
        assert_eq!(Links::new(url, &[]).expect_err("refused"), LinksError::NoKey);
        let mailto: Url = "mailto:a@shop.example".parse().expect("an address");
        assert!(matches!(Links::new(mailto, &[secret("0123456789abcdef")]), Err(LinksError::PublicUrl(_))));
    }
}
