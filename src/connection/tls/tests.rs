//! Who a certificate names.

use rcgen::{CertificateParams, DnType, KeyPair, SanType};

use super::*;

fn certificate(names: Vec<SanType>, common: Option<&str>) -> CertificateDer<'static> {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    if let Some(common) = common {
        params.distinguished_name.push(DnType::CommonName, common);
    }
    params.subject_alt_names = names;
    params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
}

#[test]
fn a_certificate_names_its_uri_else_its_dns_name_else_its_common_name() {
    let uri = SanType::URI("spiffe://prod/reader".try_into().unwrap());
    let dns = SanType::DnsName("reader.prod".try_into().unwrap());
    let cases = [
        (vec![dns.clone(), uri], Some("reader"), Some("spiffe://prod/reader")),
        (vec![dns], Some("reader"), Some("reader.prod")),
        (vec![SanType::IpAddress([127, 0, 0, 1].into())], Some("reader"), Some("reader")),
        (vec![], Some("reader"), Some("reader")),
        (vec![], None, None),
    ];
    for (names, common, wanted) in cases {
        let found = identity(&certificate(names.clone(), common));
        let wanted = wanted.map(|name| PeerIdentity(name.into()));
        assert_eq!(found, wanted, "{names:?} {common:?}");
    }
    assert_eq!(identity(&CertificateDer::from(vec![48, 0])), None);
}

#[test]
fn nothing_of_a_key_is_shown() {
    let files = Files { certificate: b"c".to_vec(), key: b"secret".to_vec(), client_ca: None };
    assert_eq!(format!("{files:?}"), "Files { .. }");
}
