//! Keys with which events are sent and people read. A key itself never comes here: whoever makes one keeps it, and gives its hash.

use super::control::Reply;
use crate::engine::profile::Name;
use crate::engine::time::Timestamp;
use crate::store::{KeyId, KeyScope, NewKey, Store, StoreError};

/// A longer name of a source is none.
const SOURCE_BYTES_MAX: usize = 64;
/// Stands on the engine's own events.
const OWN_SOURCE: &str = "rekindle";

/// Lets a key in.
///
/// # Errors
/// The store could not do it.
pub async fn add(store: &dyn Store, now: Timestamp, source: &str, scope: &str, hash: &str, by: &str) -> Result<Reply, StoreError> {
    let source = source.trim();
    if source.is_empty() || source.len() > SOURCE_BYTES_MAX || source.contains(char::is_control) {
        return Ok(Reply::refused(format!("`{source}` is no name for a source: up to {SOURCE_BYTES_MAX} characters, like `shop`")));
    }
    if source == OWN_SOURCE {
        return Ok(Reply::refused(format!("`{OWN_SOURCE}` is the source of the engine's own events: name another")));
    }
    let Some(scope) = KeyScope::named(scope) else {
        return Ok(Reply::refused(format!("there is no scope `{scope}`: a key is for `write` or `read`")));
    };
    let Some(hash) = bytes_of(hash) else { return Ok(Reply::refused("a key's hash has 64 hexadecimal digits")) };
    let id = store.add_key(NewKey { source: Name::from(source), scope, hash, at: now, by: Name::from(by) }).await?;
    tracing::info!(key.id = id.0, source, scope = scope.name(), "a key was let in");
    Ok(Reply::done(format!("key {} of `{source}`, for {}", id.0, purpose(scope))))
}

/// Shuts a key out.
///
/// # Errors
/// The store could not do it.
pub async fn revoke(store: &dyn Store, now: Timestamp, id: KeyId, by: &str) -> Result<Reply, StoreError> {
    if !store.revoke_key(id, now, by).await? {
        return Ok(Reply::refused(format!("no key {} is good here: `rekindle key list` shows them", id.0)));
    }
    tracing::info!(key.id = id.0, "a key was revoked");
    Ok(Reply::done(format!("key {} is revoked: a second from now it opens nothing", id.0)))
}

/// What a key is for, in words.
pub fn purpose(scope: KeyScope) -> &'static str {
    match scope {
        KeyScope::Write => "sending events",
        KeyScope::Read => "reading people",
    }
}

fn bytes_of(hex: &str) -> Option<[u8; 32]> {
    let digits: Option<Vec<u8>> = hex.chars().map(|digit| Some(digit.to_digit(16)? as u8)).collect();
    let bytes: Vec<u8> = digits?.chunks_exact(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit)).collect();
    (hex.len() == 64).then(|| bytes.try_into().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_travels_in_hexadecimal() {
        let hex = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(bytes_of(hex).map(|bytes| (bytes[0], bytes[31])), Some((0xba, 0xad)));
        for bad in ["", "ba", &hex.replace('b', "x"), &format!("{hex}00")] {
            assert_eq!(bytes_of(bad), None, "{bad}");
        }
    }
}
