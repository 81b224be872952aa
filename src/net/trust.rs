//! Which certificates are trusted: the system's, or those an integration names instead.

use std::fmt;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::failure::Reason;
use crate::definition::plan::api::{HttpVersions, Transport};
use crate::definition::plan::identity::Identity;

/// The machine's root certificates, read once: their verifier is shared by every client.
#[derive(Clone)]
pub struct Trust {
    provider: Arc<CryptoProvider>,
    system: Option<Arc<dyn ServerCertVerifier>>,
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trust").field("system", &self.system.is_some()).finish_non_exhaustive()
    }
}

impl Trust {
    /// Reads the machine's root certificates. A machine without any is not an error here: integrations
    /// that name their own `ca` work on it, and the others say what is missing when they are called.
    pub fn of_system() -> Self {
        let found = rustls_native_certs::load_native_certs();
        for error in &found.errors {
            tracing::warn!("a root certificate of this machine could not be read: {error}");
        }
        Self::of(&found.certs)
    }

    /// Trusts these certificates where the machine's would be.
    pub fn of(roots: &[CertificateDer<'_>]) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let system = verifier(&provider, roots).ok();
        Self { provider, system }
    }

    /// Whether there is anything to trust for this transport.
    pub fn has_roots(&self, transport: &Transport) -> bool {
        transport.ca.is_some() || self.system.is_some()
    }

    /// What a client of this transport offers and demands in TLS. Without roots it trusts nobody.
    ///
    /// # Errors
    /// [`Reason::NoRoots`] when none of the named certificates can be read, [`Reason::Tls`] when TLS
    /// cannot be set up.
    pub fn client_config(&self, transport: &Transport) -> Result<ClientConfig, Reason> {
        let verifier = match &transport.ca {
            Some(ca) => {
                let ca: Vec<_> = ca.iter().map(|der| CertificateDer::from(der.as_slice())).collect();
                Some(verifier(&self.provider, &ca)?)
            }
            None => self.system.clone(),
        };
        let builder = ClientConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| Reason::Tls(error.to_string()))?;
        let builder = match verifier {
            Some(verifier) => builder.dangerous().with_custom_certificate_verifier(verifier),
            None => builder.with_root_certificates(RootCertStore::empty()),
        };
        let mut config = match &transport.identity {
            Some(identity) => {
                let (chain, key) = parts(identity)?;
                builder.with_client_auth_cert(chain, key).map_err(|error| Reason::Tls(error.to_string()))?
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = match transport.http {
            HttpVersions::Best => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
            HttpVersions::One => vec![b"http/1.1".to_vec()],
            HttpVersions::Two => vec![b"h2".to_vec()],
        };
        Ok(config)
    }
}

/// What a client demands that knows the very certificate it must be shown, whatever names it has and whoever
/// signed it.
///
/// # Errors
/// [`Reason::Tls`] when TLS cannot be set up.
pub fn only(certificate: Vec<u8>) -> Result<ClientConfig, Reason> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = Only { certificate, algorithms: provider.signature_verification_algorithms };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Reason::Tls(error.to_string()))?;
    Ok(builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth())
}

#[derive(Debug)]
struct Only {
    certificate: Vec<u8>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Only {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if end_entity.as_ref() == self.certificate.as_slice() {
            return Ok(ServerCertVerified::assertion());
        }
        Err(rustls::Error::General("it shows another certificate than the settings name".to_owned()))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// A client certificate and its key as the TLS library takes them.
fn parts(identity: &Identity) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), Reason> {
    let chain = identity.chain.iter().map(|der| CertificateDer::from(der.clone())).collect();
    let key = PrivateKeyDer::try_from(identity.key.expose().clone()).map_err(|words| Reason::Tls(words.to_owned()))?;
    Ok((chain, key))
}

/// rustls' own verifier over some roots. Certificates that cannot be read are left out: system stores
/// have had such for decades.
fn verifier(
    provider: &Arc<CryptoProvider>,
    roots: &[CertificateDer<'_>],
) -> Result<Arc<dyn ServerCertVerifier>, Reason> {
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(roots.iter().cloned().map(CertificateDer::into_owned));
    if store.is_empty() {
        return Err(Reason::NoRoots);
    }
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(store), Arc::clone(provider))
        .build()
        .map_err(|error| Reason::Tls(error.to_string()))?;
    Ok(verifier)
}
