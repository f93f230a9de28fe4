//! Who is at the door: write and read keys. What the database keeps is the SHA-256 of a key; a short-lived copy of the list stands in
//! memory, so that a request costs no query, and a revoked key opens nothing a moment later.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use axum::http::{HeaderMap, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::sync::Mutex;

use crate::clock::Stopwatch;
use crate::engine::profile::Name;
use crate::store::{ApiKey, KeyId, KeyScope, Store, StoreError};

/// What every key begins with: found by whoever looks for secrets in texts.
const PREFIX: &str = "rk_";
/// Random bytes of a key.
const KEY_BYTES: usize = 32;
/// A longer key is none: nothing is hashed that is longer.
const KEY_CHARS_MAX: usize = 256;
/// So long a revoked key may still open the door, and a new one may be unknown.
pub const FRESH: Duration = Duration::from_secs(1);

/// A new key: 256 random bits.
///
/// # Errors
/// The system gives no random numbers.
pub fn generate() -> Result<String, String> {
    let mut bytes = [0; KEY_BYTES];
    SystemRandom::new().fill(&mut bytes).map_err(|_| "the system gives no random numbers".to_owned())?;
    let mut key = String::from(PREFIX);
    for byte in bytes {
        // writing to a string cannot fail
        let _fits = write!(key, "{byte:02x}");
    }
    Ok(key)
}

/// What is kept of a key. Keys are random, so one round of SHA-256 is enough.
pub fn hash(key: &str) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, key.as_bytes()).as_ref());
    hash
}

/// A key that was recognised.
#[derive(Clone, Debug, PartialEq)]
pub struct Bearer {
    pub id: KeyId,
    pub source: Name,
    pub scope: KeyScope,
}

/// The keys that are good.
pub struct Keys {
    store: Arc<dyn Store>,
    fresh: Duration,
    known: ArcSwapOption<Known>,
    /// One reads for all who wait.
    reading: Mutex<()>,
}

struct Known {
    by_hash: HashMap<[u8; 32], Bearer>,
    read: Stopwatch,
}

impl Keys {
    pub fn new(store: Arc<dyn Store>, fresh: Duration) -> Self {
        Keys { store, fresh, known: ArcSwapOption::empty(), reading: Mutex::new(()) }
    }

    /// Whose key it is; none if nobody's.
    ///
    /// # Errors
    /// The keys cannot be read.
    pub async fn recognise(&self, key: &str) -> Result<Option<Bearer>, StoreError> {
        if key.len() > KEY_CHARS_MAX {
            return Ok(None);
        }
        Ok(self.known().await?.by_hash.get(&hash(key)).cloned())
    }

    async fn known(&self) -> Result<Arc<Known>, StoreError> {
        let fresh = || self.known.load_full().filter(|known| known.read.elapsed() < self.fresh);
        if let Some(known) = fresh() {
            return Ok(known);
        }
        let _one = self.reading.lock().await;
        if let Some(known) = fresh() {
            return Ok(known);
        }
        let read = Stopwatch::start();
        let live = self.store.keys().await?.into_iter().filter(|key| key.revoked.is_none());
        let bearer = |key: ApiKey| (key.hash, Bearer { id: key.id, source: key.source, scope: key.scope });
        let known = Arc::new(Known { by_hash: live.map(bearer).collect(), read });
        self.known.store(Some(known.clone()));
        Ok(known)
    }
}

/// The key in the head of a request: the user name of Basic authentication, as SDKs send it, or a bearer token.
pub fn presented(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, rest) = text.split_once(' ')?;
    match scheme.to_ascii_lowercase().as_str() {
        "bearer" => Some(rest.trim().to_owned()),
        "basic" => {
            let pair = String::from_utf8(STANDARD.decode(rest.trim()).ok()?).ok()?;
            Some(pair.split_once(':').map_or(pair.as_str(), |(user, _)| user).to_owned())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_long_and_its_own() {
        let (one, other) = (generate().expect("random"), generate().expect("random"));
        assert!(one.starts_with(PREFIX) && one.len() == PREFIX.len() + 2 * KEY_BYTES, "{one}");
        assert_ne!(one, other);
        assert_eq!(hash("abc")[..4], [0xba, 0x78, 0x16, 0xbf], "FIPS 180-2, B.1");
    }

    #[test]
    fn a_key_stands_where_sdks_put_it() {
        let table = [
            ("Basic cmtfMTo=", Some("rk_1")),
            ("basic cmtfMTpwYXNz", Some("rk_1")),
            ("Bearer rk_1", Some("rk_1")),
            ("Basic !", None),
            ("Digest x", None),
            ("rk_1", None),
        ];
        for (value, key) in table {
            let headers = HeaderMap::from_iter([(header::AUTHORIZATION, value.parse().expect("a header"))]);
            assert_eq!(presented(&headers).as_deref(), key, "{value}");
        }
    }
}
