//! Tokens that somebody else signs (JWT), checked with keys from a file.
//!
//! The library reads tokens and holds their claims against the rules; signatures are checked by
//! *ring*, which TLS has anyway. Which algorithms count is the operator's word, never the token's, and
//! all of them are asymmetric: a key that checks cannot sign.
//!
//! Source: RFC 7515 (signatures), RFC 7517 (keys), RFC 8725, sections 3.1 and 3.2.

use jsonwebtoken::crypto::{CryptoProvider, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{ErrorKind, Result as JwtResult};
use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind, Validation};
use ring::signature::{self as ring_signature, RsaPublicKeyComponents, UnparsedPublicKey};
use serde::Deserialize;

/// The `[jwt]` part of the file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct JwtRules {
    issuer: String,
    audience: String,
    algorithms: Vec<String>,
    /// File with a set of keys (JWKS), beside the access file.
    pub(super) keys: String,
    /// By how much clocks may differ, in seconds.
    #[serde(default = "default_leeway")]
    leeway_s: u64,
}

/// An hour: clocks that differ by more are wrong.
const MOST_LEEWAY_S: u64 = 3600;

fn default_leeway() -> u64 {
    60
}

/// What checks signed tokens.
pub(super) struct Signed {
    rules: JwtRules,
    keys: Vec<Key>,
}

struct Key {
    id: Option<String>,
    algorithm: Algorithm,
    decoding: DecodingKey,
}

impl std::fmt::Debug for Signed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Signed").field("keys", &self.keys.len()).finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
    exp: u64,
}

impl Signed {
    /// # Errors
    /// A sentence with what is wrong.
    pub(super) fn new(rules: JwtRules, keys: &str) -> Result<Self, String> {
        let algorithm = |name: &String| {
            let known = name.parse::<Algorithm>().ok().filter(|it| ring_algorithm(*it).is_some());
            known.ok_or_else(|| format!("jwt: algorithm {name:?} is not served; use {SERVED}"))
        };
        let allowed: Result<Vec<_>, _> = rules.algorithms.iter().map(algorithm).collect();
        let allowed = allowed?;
        if rules.issuer.is_empty() || rules.audience.is_empty() || allowed.is_empty() {
            return Err("jwt: issuer, audience and algorithms must not be empty".to_owned());
        }
        if rules.leeway_s > MOST_LEEWAY_S {
            return Err(format!("jwt: leeway_s is {}, at most {MOST_LEEWAY_S}", rules.leeway_s));
        }
        let set: JwkSet = serde_json::from_str(keys)
            .map_err(|error| format!("jwt: {:?} is no set of keys: {error}", rules.keys))?;
        let mut keys = Vec::new();
        for jwk in set.keys {
            for algorithm in &allowed {
                if let Ok(key) = DecodingKey::from_jwk(&jwk)
                    && key.family() == algorithm.family()
                    && is_for(&jwk, *algorithm)
                    && has_size(&key, *algorithm)
                {
                    let id = jwk.common.key_id.clone();
                    keys.push(Key { id, algorithm: *algorithm, decoding: key });
                }
            }
        }
        if keys.is_empty() {
            return Err(format!(
                "jwt: {:?} has no key for {}",
                rules.keys,
                rules.algorithms.join(", ")
            ));
        }
        // The first wins; there is no other in this process.
        PROVIDER.install_default().ok();
        Ok(Self { rules, keys })
    }

    /// The subject of a token and when it ends, if it is right at `now`, both in seconds of the Unix
    /// epoch.
    pub(super) fn verify(&self, token: &[u8], now: u64) -> Option<(String, u64)> {
        let header = jsonwebtoken::decode_header(token).ok()?;
        // What must be understood to be believed is not understood here: RFC 7515, 4.1.11.
        if header.crit.is_some() {
            return None;
        }
        self.keys
            .iter()
            .filter(|key| key.algorithm == header.alg)
            .filter(|key| header.kid.is_none() || key.id == header.kid)
            .find_map(|key| self.verify_with(key, token, now))
    }

    fn verify_with(&self, key: &Key, token: &[u8], now: u64) -> Option<(String, u64)> {
        let mut validation = Validation::new(key.algorithm);
        validation.set_issuer(&[&self.rules.issuer]);
        validation.set_audience(&[&self.rules.audience]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        validation.validate_nbf = true;
        validation.leeway = self.rules.leeway_s;
        let claims = jsonwebtoken::decode::<Claims>(token, &key.decoding, &validation).ok()?.claims;
        let ends_at = claims.exp.saturating_add(self.rules.leeway_s);
        (now < ends_at && !claims.sub.is_empty()).then_some((claims.sub, ends_at))
    }
}

/// Whether a key says nothing against its use for this.
fn is_for(jwk: &Jwk, algorithm: Algorithm) -> bool {
    use jsonwebtoken::jwk::PublicKeyUse;
    let common = &jwk.common;
    let own = common.key_algorithm.map(|own| own.to_string().parse::<Algorithm>().ok());
    own.is_none_or(|own| own == Some(algorithm))
        && !matches!(common.public_key_use, Some(PublicKeyUse::Encryption))
}

/// Curves of one family differ in size: 256 bits with 256 bits.
fn has_size(key: &DecodingKey, algorithm: Algorithm) -> bool {
    let DecodingKeyKind::SecretOrDer(bytes) = key.kind() else { return true };
    match algorithm {
        Algorithm::ES256 => bytes.len() == 65,
        Algorithm::ES384 => bytes.len() == 97,
        Algorithm::EdDSA => bytes.len() == 32,
        _ => true,
    }
}

const SERVED: &str = "RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384 or EdDSA";

/// How *ring* checks an algorithm.
enum RingAlgorithm {
    Rsa(&'static ring_signature::RsaParameters),
    Other(&'static dyn ring_signature::VerificationAlgorithm),
}

fn ring_algorithm(algorithm: Algorithm) -> Option<RingAlgorithm> {
    use RingAlgorithm::{Other, Rsa};
    Some(match algorithm {
        Algorithm::RS256 => Rsa(&ring_signature::RSA_PKCS1_2048_8192_SHA256),
        Algorithm::RS384 => Rsa(&ring_signature::RSA_PKCS1_2048_8192_SHA384),
        Algorithm::RS512 => Rsa(&ring_signature::RSA_PKCS1_2048_8192_SHA512),
        Algorithm::PS256 => Rsa(&ring_signature::RSA_PSS_2048_8192_SHA256),
        Algorithm::PS384 => Rsa(&ring_signature::RSA_PSS_2048_8192_SHA384),
        Algorithm::PS512 => Rsa(&ring_signature::RSA_PSS_2048_8192_SHA512),
        Algorithm::ES256 => Other(&ring_signature::ECDSA_P256_SHA256_FIXED),
        Algorithm::ES384 => Other(&ring_signature::ECDSA_P384_SHA384_FIXED),
        Algorithm::EdDSA => Other(&ring_signature::ED25519),
        _ => return None,
    })
}

/// The library's signatures by *ring*. Nothing is signed here.
static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: |_, _| Err(ErrorKind::InvalidAlgorithm.into()),
    verifier_factory: |algorithm, key| verifier(*algorithm, key),
    key_utils: KeyUtils::new_unimplemented(),
};

fn verifier(algorithm: Algorithm, key: &DecodingKey) -> JwtResult<Box<dyn JwtVerifier>> {
    if key.family() == AlgorithmFamily::Hmac || key.family() != algorithm.family() {
        return Err(ErrorKind::InvalidAlgorithm.into());
    }
    Ok(Box::new(Verifier { algorithm, key: key.kind().clone() }))
}

struct Verifier {
    algorithm: Algorithm,
    key: DecodingKeyKind,
}

impl JwtVerifier for Verifier {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

impl signature::Verifier<Vec<u8>> for Verifier {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), signature::Error> {
        let verified = match (ring_algorithm(self.algorithm), &self.key) {
            (Some(RingAlgorithm::Rsa(how)), DecodingKeyKind::RsaModulusExponent { n, e }) => {
                RsaPublicKeyComponents { n, e }.verify(how, message, signature)
            }
            (Some(RingAlgorithm::Other(how)), DecodingKeyKind::SecretOrDer(key)) => {
                UnparsedPublicKey::new(how, key).verify(message, signature)
            }
            _ => Err(ring::error::Unspecified),
        };
        verified.map_err(|_| signature::Error::new())
    }
}

#[cfg(test)]
mod tests;
