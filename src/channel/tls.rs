//! How we trust who answers: the machine's certificate authorities, and one's own for a private network. One place for mail and HTTP.

use std::sync::Arc;

use rustls::ClientConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls_platform_verifier::Verifier;

/// Why nothing can be trusted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot set up TLS: {0}")]
pub struct TlsError(pub String);

/// The one provider of cryptography.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// `ca`: PEM of authorities beside the machine's.
///
/// # Errors
/// The PEM holds no certificate, or there are no authorities at all.
pub fn client_config(ca: Option<&str>) -> Result<ClientConfig, TlsError> {
    let error = |error: &dyn std::fmt::Display| TlsError(error.to_string());
    let own: Vec<CertificateDer<'static>> = match ca {
        Some(pem) => CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().map_err(|e| error(&e))?,
        None => Vec::new(),
    };
    if ca.is_some() && own.is_empty() {
        return Err(TlsError("`ca` holds no certificate in PEM form".into()));
    }
    let verifier = Verifier::new_with_extra_roots(own, provider()).map_err(|e| error(&e))?;
    let builder = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().map_err(|e| error(&e))?;
    // not less than the usual check: the same one, by the machine's own authorities
    Ok(builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth())
}
