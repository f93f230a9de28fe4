//! DKIM signatures (RFC 6376), relaxed/relaxed, one for each key: RSA for everybody, Ed25519 (RFC 8463) beside it for who reads it.

use mail_auth::common::crypto::{Ed25519Key, RsaKey, Sha256};
use mail_auth::common::headers::HeaderWriter as _;
use mail_auth::dkim::{DkimSigner, Done};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::letter::{Letter, LetterError};
use crate::channel::ChannelError;
use crate::settings::providers::Dkim;

/// What is signed, if it is there. `From` stands twice: a second one that somebody adds on the way breaks the signature. What
/// is missing may not be added either.
const HEADERS: [&str; 13] = [
    "From",
    "From",
    "To",
    "Subject",
    "Date",
    "Message-ID",
    "Reply-To",
    "MIME-Version",
    "Content-Type",
    "Content-Transfer-Encoding",
    "List-Id",
    "List-Unsubscribe",
    "List-Unsubscribe-Post",
];

/// The keys by which mails are signed.
pub struct Signers(Vec<Signer>);

enum Signer {
    Rsa(Box<DkimSigner<RsaKey<Sha256>, Done>>),
    Ed25519(Box<DkimSigner<Ed25519Key, Done>>),
}

impl Signers {
    /// # Errors
    /// A key is neither RSA nor Ed25519, or not PEM.
    pub fn new(keys: &[Dkim]) -> Result<Signers, ChannelError> {
        keys.iter().map(Signer::new).collect::<Result<_, _>>().map(Signers)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// # Errors
    /// The library refuses the mail.
    pub fn sign(&self, mut letter: Letter) -> Result<Letter, LetterError> {
        let mut head = String::new();
        for signer in &self.0 {
            let signature = match signer {
                Signer::Rsa(signer) => signer.sign(&letter.bytes),
                Signer::Ed25519(signer) => signer.sign(&letter.bytes),
            };
            head.push_str(&signature.map_err(|error| LetterError::Unsigned(error.to_string()))?.to_header());
        }
        letter.bytes.splice(0..0, head.into_bytes());
        Ok(letter)
    }
}

impl Signer {
    fn new(settings: &Dkim) -> Result<Signer, ChannelError> {
        let error = |what: &dyn std::fmt::Display| {
            ChannelError(format!("the DKIM key `{}` of {} cannot be used: {what}", settings.selector, settings.domain))
        };
        let pem = settings.key.reveal().as_bytes();
        let der = PrivateKeyDer::from_pem_slice(pem).map_err(|e| error(&e))?;
        if let Ok(key) = RsaKey::<Sha256>::from_key_der(der) {
            let signer = DkimSigner::from_key(key).domain(&settings.domain).selector(&settings.selector).headers(HEADERS);
            return Ok(Signer::Rsa(Box::new(signer)));
        }
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem).map_err(|_| error(&"it is no RSA key, and no PKCS#8"))?;
        let key = Ed25519Key::from_pkcs8_maybe_unchecked_der(der.secret_pkcs8_der()).map_err(|e| error(&e))?;
        let signer = DkimSigner::from_key(key).domain(&settings.domain).selector(&settings.selector).headers(HEADERS);
        Ok(Signer::Ed25519(Box::new(signer)))
    }
}
