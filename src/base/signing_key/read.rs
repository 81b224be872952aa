//! A key's text as a key.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use ring::error::KeyRejected;
use ring::hmac;
use ring::rand::SystemRandom;
use ring::rsa::{KeyPairComponents, PublicKeyComponents};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm,
    Ed25519KeyPair, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384,
    RSA_PSS_SHA512, RsaEncoding, RsaKeyPair,
};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::{Map, Value};
use zeroize::{Zeroize as _, Zeroizing};

use super::{Algorithm, Encoding, KeyFault, Material, SigningKey};

/// Padding may be there or not.
const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const BASE64: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const BASE64_URL: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);
/// How a PEM text begins.
const PEM: &str = "-----BEGIN ";

pub(super) fn key(algorithm: Algorithm, text: &str, encoding: Encoding) -> Result<SigningKey, KeyFault> {
    let text = text.trim();
    let (material, id) = if text.starts_with('{') && encoding == Encoding::Utf8 {
        let jwk = Jwk::read(algorithm, text)?;
        (jwk.material()?, jwk.text("kid").map(str::to_owned))
    } else if algorithm.is_shared() {
        (shared(algorithm, text, encoding)?, None)
    } else if text.starts_with(PEM) {
        (of_pem(algorithm, text)?, None)
    } else {
        return Err(KeyFault::Form(algorithm));
    };
    Ok(SigningKey { algorithm, id, material })
}

fn shared(algorithm: Algorithm, text: &str, encoding: Encoding) -> Result<Material, KeyFault> {
    if text.starts_with(PEM) {
        return Err(KeyFault::PemForShared(algorithm));
    }
    let bytes = match encoding {
        Encoding::Utf8 => Some(text.as_bytes().to_vec()),
        Encoding::Hex => hex(text),
        Encoding::Base64 => BASE64.decode(text).ok(),
        Encoding::Base64Url => BASE64_URL.decode(text).ok(),
    };
    mac_key(algorithm, &Zeroizing::new(bytes.ok_or(KeyFault::Encoding)?))
}

fn mac_key(algorithm: Algorithm, bytes: &[u8]) -> Result<Material, KeyFault> {
    if bytes.is_empty() {
        return Err(KeyFault::Empty);
    }
    let hash = match algorithm {
        Algorithm::HS384 => hmac::HMAC_SHA384,
        Algorithm::HS512 => hmac::HMAC_SHA512,
        _ => hmac::HMAC_SHA256,
    };
    Ok(Material::Shared(hmac::Key::new(hash, bytes)))
}

fn hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let bytes = pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect();
    if rest.is_empty() { bytes } else { None }
}

/// What an algorithm signs with.
enum Family {
    Rsa(&'static dyn RsaEncoding),
    Ecdsa(&'static EcdsaSigningAlgorithm, &'static str),
    Ed25519,
    Shared,
}

impl Algorithm {
    fn family(self) -> Family {
        match self {
            Self::RS256 => Family::Rsa(&RSA_PKCS1_SHA256),
            Self::RS384 => Family::Rsa(&RSA_PKCS1_SHA384),
            Self::RS512 => Family::Rsa(&RSA_PKCS1_SHA512),
            Self::PS256 => Family::Rsa(&RSA_PSS_SHA256),
            Self::PS384 => Family::Rsa(&RSA_PSS_SHA384),
            Self::PS512 => Family::Rsa(&RSA_PSS_SHA512),
            Self::ES256 => Family::Ecdsa(&ECDSA_P256_SHA256_FIXED_SIGNING, "P-256"),
            Self::ES384 => Family::Ecdsa(&ECDSA_P384_SHA384_FIXED_SIGNING, "P-384"),
            Self::EdDSA => Family::Ed25519,
            Self::HS256 | Self::HS384 | Self::HS512 => Family::Shared,
        }
    }

    fn needs(self) -> &'static str {
        match self.family() {
            Family::Rsa(_) => "an RSA key of 2048 to 4096 bits",
            Family::Ecdsa(_, "P-256") => "an EC key on P-256 with its public half",
            Family::Ecdsa(..) => "an EC key on P-384 with its public half",
            Family::Ed25519 => "an Ed25519 key",
            Family::Shared => "a shared secret",
        }
    }

    fn unfit(self, reason: &KeyRejected) -> KeyFault {
        KeyFault::Kind { algorithm: self, needs: self.needs(), reason: reason.to_string() }
    }
}

fn of_pem(algorithm: Algorithm, text: &str) -> Result<Material, KeyFault> {
    if text.contains("ENCRYPTED") {
        return Err(KeyFault::Encrypted);
    }
    // Environment variables and JSON often carry the line breaks as two characters.
    let unfolded = Zeroizing::new(text.replace("\\n", "\n"));
    let der = PrivateKeyDer::from_pem_slice(unfolded.as_bytes()).map_err(|_| KeyFault::NoPrivateKey)?;
    let unfit = |error: KeyRejected| algorithm.unfit(&error);
    let strange =
        || KeyFault::Kind { algorithm, needs: algorithm.needs(), reason: "the key is of another kind".to_owned() };
    let mut der = der;
    let material = match (algorithm.family(), &der) {
        (Family::Rsa(encoding), PrivateKeyDer::Pkcs8(der)) => {
            RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()).map(|pair| Material::Rsa(pair, encoding)).map_err(unfit)
        }
        (Family::Rsa(encoding), PrivateKeyDer::Pkcs1(der)) => {
            RsaKeyPair::from_der(der.secret_pkcs1_der()).map(|pair| Material::Rsa(pair, encoding)).map_err(unfit)
        }
        (Family::Ecdsa(curve, _), PrivateKeyDer::Pkcs8(der)) => ec_pair(algorithm, curve, der.secret_pkcs8_der()),
        (Family::Ecdsa(curve, name), PrivateKeyDer::Sec1(der)) => {
            ec_pair(algorithm, curve, &pkcs8_of_sec1(name, der.secret_sec1_der()))
        }
        (Family::Ed25519, PrivateKeyDer::Pkcs8(der)) => {
            Ed25519KeyPair::from_pkcs8_maybe_unchecked(der.secret_pkcs8_der()).map(Material::Ed25519).map_err(unfit)
        }
        _ => Err(strange()),
    };
    der.zeroize();
    material
}

fn ec_pair(algorithm: Algorithm, curve: &'static EcdsaSigningAlgorithm, der: &[u8]) -> Result<Material, KeyFault> {
    let random = SystemRandom::new();
    EcdsaKeyPair::from_pkcs8(curve, der, &random)
        .map(|pair| Material::Ecdsa(pair, random))
        .map_err(|error| algorithm.unfit(&error))
}

/// A SEC 1 key (RFC 5915) in the wrapping of RFC 5208, which is the only one that the library reads.
fn pkcs8_of_sec1(curve: &str, sec1: &[u8]) -> Zeroizing<Vec<u8>> {
    const P256: &[u8] = &[
        0x02, 0x01, 0x00, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
        0x48, 0xce, 0x3d, 0x03, 0x01, 0x07,
    ];
    const P384: &[u8] = &[
        0x02, 0x01, 0x00, 0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b, 0x81,
        0x04, 0x00, 0x22,
    ];
    let head = if curve == "P-256" { P256 } else { P384 };
    let mut body = Zeroizing::new(head.to_vec());
    body.push(0x04);
    push_length(&mut body, sec1.len());
    body.extend_from_slice(sec1);
    let mut whole = Zeroizing::new(vec![0x30]);
    push_length(&mut whole, body.len());
    whole.extend_from_slice(&body);
    whole
}

/// A length in DER, of as many bytes as it needs.
fn push_length(der: &mut Vec<u8>, length: usize) {
    let bytes = length.to_be_bytes();
    let significant = bytes.iter().skip_while(|byte| **byte == 0).copied().collect::<Vec<_>>();
    match (length, u8::try_from(significant.len())) {
        (0..0x80, _) | (_, Err(_)) => der.push(bytes.last().copied().unwrap_or_default()),
        (_, Ok(count)) => {
            der.push(0x80 | count);
            der.extend(significant);
        }
    }
}

/// A JSON Web Key (RFC 7517).
struct Jwk {
    algorithm: Algorithm,
    members: Map<String, Value>,
}

impl Jwk {
    fn read(algorithm: Algorithm, text: &str) -> Result<Self, KeyFault> {
        let Ok(members) = serde_json::from_str::<Map<String, Value>>(text) else {
            return Err(KeyFault::Form(algorithm));
        };
        let jwk = Self { algorithm, members };
        if jwk.text("alg").is_some_and(|alg| alg != algorithm.name()) {
            return Err(jwk.lacks("its `alg` is another"));
        }
        if jwk.text("use").is_some_and(|purpose| purpose != "sig") {
            return Err(jwk.lacks("its `use` is not `sig`"));
        }
        Ok(jwk)
    }

    fn text(&self, member: &str) -> Option<&str> {
        self.members.get(member)?.as_str()
    }

    fn lacks(&self, what: impl Into<String>) -> KeyFault {
        KeyFault::Jwk { algorithm: self.algorithm, lacks: what.into() }
    }

    fn bytes(&self, member: &str) -> Result<Zeroizing<Vec<u8>>, KeyFault> {
        let text = self.text(member).ok_or_else(|| self.lacks(format!("it has no `{member}`")))?;
        let bytes =
            BASE64_URL.decode(text).map_err(|_| self.lacks(format!("its `{member}` is not in base 64 for URLs")))?;
        Ok(Zeroizing::new(bytes))
    }

    fn of_type(&self, kty: &str, crv: Option<&str>) -> Result<(), KeyFault> {
        if self.text("kty") != Some(kty) {
            return Err(self.lacks(format!("its `kty` is not `{kty}`")));
        }
        match crv {
            Some(crv) if self.text("crv") != Some(crv) => Err(self.lacks(format!("its `crv` is not `{crv}`"))),
            _ => Ok(()),
        }
    }

    fn material(&self) -> Result<Material, KeyFault> {
        let unfit = |error: KeyRejected| self.algorithm.unfit(&error);
        match self.algorithm.family() {
            Family::Shared => {
                self.of_type("oct", None)?;
                mac_key(self.algorithm, &self.bytes("k")?)
            }
            Family::Rsa(encoding) => {
                self.of_type("RSA", None)?;
                let part = |member| self.bytes(member);
                let components = KeyPairComponents {
                    public_key: PublicKeyComponents { n: part("n")?, e: part("e")? },
                    d: part("d")?,
                    p: part("p")?,
                    q: part("q")?,
                    dP: part("dp")?,
                    dQ: part("dq")?,
                    qInv: part("qi")?,
                };
                RsaKeyPair::from_components(&components).map(|pair| Material::Rsa(pair, encoding)).map_err(unfit)
            }
            Family::Ecdsa(curve, name) => {
                self.of_type("EC", Some(name))?;
                let mut public = vec![0x04];
                public.extend_from_slice(&self.bytes("x")?);
                public.extend_from_slice(&self.bytes("y")?);
                let random = SystemRandom::new();
                EcdsaKeyPair::from_private_key_and_public_key(curve, &self.bytes("d")?, &public, &random)
                    .map(|pair| Material::Ecdsa(pair, random))
                    .map_err(unfit)
            }
            Family::Ed25519 => {
                self.of_type("OKP", Some("Ed25519"))?;
                Ed25519KeyPair::from_seed_and_public_key(&self.bytes("d")?, &self.bytes("x")?)
                    .map(Material::Ed25519)
                    .map_err(unfit)
            }
        }
    }
}
