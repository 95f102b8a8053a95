//! Signed tokens: those that count, and every way not to.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};

use super::*;

const NOW: u64 = 4_000_000_000;

fn encoded(bytes: &[u8]) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

/// Somebody who signs.
enum Signer {
    Curve(EcdsaKeyPair),
    Edwards(Ed25519KeyPair),
}

impl Signer {
    fn curve() -> Self {
        let (how, random) = (&ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
        let key = EcdsaKeyPair::generate_pkcs8(how, &random).unwrap();
        Self::Curve(EcdsaKeyPair::from_pkcs8(how, key.as_ref(), &random).unwrap())
    }

    fn edwards() -> Self {
        let key = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Self::Edwards(Ed25519KeyPair::from_pkcs8(key.as_ref()).unwrap())
    }

    fn jwk(&self, id: &str) -> Value {
        match self {
            Self::Curve(key) => {
                let (x, y) = key.public_key().as_ref()[1..].split_at(32);
                let (x, y) = (encoded(x), encoded(y));
                json!({ "kty": "EC", "crv": "P-256", "kid": id, "x": x, "y": y })
            }
            Self::Edwards(key) => {
                let x = encoded(key.public_key().as_ref());
                json!({ "kty": "OKP", "crv": "Ed25519", "kid": id, "x": x })
            }
        }
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        let [header, claims] = [header, claims].map(|part| encoded(part.to_string().as_bytes()));
        let message = format!("{header}.{claims}");
        let signature = match self {
            Self::Curve(key) => {
                let signed = key.sign(&SystemRandom::new(), message.as_bytes()).unwrap();
                encoded(signed.as_ref())
            }
            Self::Edwards(key) => encoded(key.sign(message.as_bytes()).as_ref()),
        };
        format!("{message}.{signature}")
    }
}

fn rules(algorithms: &[&str]) -> JwtRules {
    JwtRules {
        issuer: "https://login".to_owned(),
        audience: "onnxd".to_owned(),
        algorithms: algorithms.iter().map(|name| (*name).to_owned()).collect(),
        keys: "jwks.json".to_owned(),
        leeway_s: 60,
    }
}

fn signed(algorithms: &[&str], keys: &[Value]) -> Signed {
    Signed::new(rules(algorithms), &json!({ "keys": keys }).to_string()).unwrap()
}

fn claims() -> Value {
    json!({ "iss": "https://login", "aud": ["other", "onnxd"], "sub": "svc", "exp": NOW + 100 })
}

#[test]
fn what_the_right_key_has_signed_counts_until_it_ends() {
    let (curve, edwards) = (Signer::curve(), Signer::edwards());
    let signed = signed(&["ES256", "EdDSA"], &[curve.jwk("a"), edwards.jwk("b")]);
    let wanted = Some(("svc".to_owned(), NOW + 160));
    for (signer, algorithm, id) in [(&curve, "ES256", "a"), (&edwards, "EdDSA", "b")] {
        let named = signer.sign(&json!({ "alg": algorithm, "kid": id }), &claims());
        assert_eq!(signed.verify(named.as_bytes(), NOW), wanted, "{algorithm}");
        let nameless = signer.sign(&json!({ "alg": algorithm }), &claims());
        assert_eq!(signed.verify(nameless.as_bytes(), NOW), wanted, "{algorithm}");
        assert_eq!(signed.verify(nameless.as_bytes(), NOW + 160), None);
    }
}

#[test]
fn nothing_else_counts() {
    let (ours, theirs, edwards) = (Signer::curve(), Signer::curve(), Signer::edwards());
    let signed = signed(&["ES256"], &[ours.jwk("a"), edwards.jwk("b")]);
    let header = json!({ "alg": "ES256", "kid": "a" });
    let good = ours.sign(&header, &claims());
    assert!(signed.verify(good.as_bytes(), NOW).is_some());
    let with = |key: &str, value: Value| {
        let mut claims = claims();
        claims[key] = value;
        ours.sign(&header, &claims)
    };
    let without = |key: &str| {
        let mut claims = claims();
        claims.as_object_mut().unwrap().remove(key);
        ours.sign(&header, &claims)
    };
    let (message, signature) = good.rsplit_once('.').unwrap();
    let unsigned = |algorithm: &str| {
        let header = encoded(json!({ "alg": algorithm, "kid": "a" }).to_string().as_bytes());
        format!("{header}.{}.", encoded(claims().to_string().as_bytes()))
    };
    for (what, token) in [
        ("another key", theirs.sign(&header, &claims())),
        ("a key that is not there", ours.sign(&json!({ "alg": "ES256", "kid": "c" }), &claims())),
        ("an algorithm that is not wanted", edwards.sign(&json!({ "alg": "EdDSA" }), &claims())),
        ("an algorithm of another key", ours.sign(&json!({ "alg": "HS256" }), &claims())),
        ("no algorithm", unsigned("none")),
        ("no signature", unsigned("ES256")),
        ("an extension", ours.sign(&json!({ "alg": "ES256", "crit": ["exp"] }), &claims())),
        ("another issuer", with("iss", json!("https://other"))),
        ("another audience", with("aud", json!("other"))),
        ("a past end", with("exp", json!(1_000_000_000))),
        ("no number", with("exp", json!("never"))),
        ("a later start", with("nbf", json!(u64::from(u32::MAX) * 2))),
        ("no name", with("sub", json!(""))),
        ("no issuer", without("iss")),
        ("no audience", without("aud")),
        ("no end", without("exp")),
        ("no subject", without("sub")),
        ("a cut signature", format!("{message}.{}", &signature[..40])),
        ("a part too many", format!("{good}.e30")),
        ("nothing", String::new()),
        ("dots", "..".to_owned()),
    ] {
        assert_eq!(signed.verify(token.as_bytes(), NOW), None, "{what}");
    }
}

/// Made with another library (pyca/cryptography): *ring* makes no keys for RSA.
#[test]
fn rsa_is_checked_too() {
    let read = |name: &str| {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/jwt");
        std::fs::read_to_string(path.join(name)).unwrap()
    };
    for algorithm in ["RS256", "PS384"] {
        let signed = Signed::new(rules(&[algorithm]), &read("jwks.json")).unwrap();
        let token = read(&format!("{algorithm}.token"));
        let (subject, _) = signed.verify(token.trim().as_bytes(), NOW).unwrap();
        assert_eq!(subject, "svc");
        let others = Signed::new(rules(&["RS512", "PS512"]), &read("jwks.json")).unwrap();
        assert_eq!(others.verify(token.trim().as_bytes(), NOW), None);
    }
}

#[test]
fn rules_that_cannot_be_kept_are_refused() {
    let jwk = Signer::curve().jwk("a");
    let refusal = |rules: JwtRules, keys: &str| Signed::new(rules, keys).err().unwrap();
    let keys = json!({ "keys": [jwk] }).to_string();
    assert!(refusal(rules(&["HS256"]), &keys).contains("not served"));
    assert!(refusal(rules(&["none"]), &keys).contains("not served"));
    assert!(refusal(rules(&[]), &keys).contains("must not be empty"));
    assert!(refusal(rules(&["RS256"]), &keys).contains("no key for RS256"));
    assert!(refusal(rules(&["ES384"]), &keys).contains("no key for ES384"));
    assert!(refusal(rules(&["ES256"]), "{}").contains("no set of keys"));
    let hour = JwtRules { leeway_s: 3601, ..rules(&["ES256"]) };
    assert!(refusal(hour, &keys).contains("at most 3600"));
    let mut other_use = jwk;
    other_use["use"] = json!("enc");
    assert!(
        refusal(rules(&["ES256"]), &json!({ "keys": [other_use] }).to_string()).contains("no key")
    );
}
