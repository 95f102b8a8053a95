//! Callers: admitted by what they send, allowed by the table.

use super::*;

/// SHA-256 of "secret" and of "other".
const SECRET: &str = "2bb80d537b1da3e38bd30361aa855686bde0eacd7162fef6a25fe97bf527a25b";
const OTHER: &str = "d9298a10d1b0735837dc4bd85dac641b0f3cef27a47e5d53a54f2f3f5b2fcffa";

fn access() -> (Access, tempfile::NamedTempFile) {
    let file = tempfile::NamedTempFile::new().unwrap();
    let text = format!(
        "[[token]]\nname = 'ci'\nsha256 = '{SECRET}'\n\
         [[token]]\nname = 'idle'\nsha256 = '{OTHER}'\n\
         [[grant]]\nto = ['token:ci', 'cert:spiffe://prod/*']\nmodels = ['res*']\n\
         rights = ['infer']\n"
    );
    std::fs::write(file.path(), text).unwrap();
    let settings = AccessSettings { file: file.path().to_owned(), reload: Duration::from_secs(10) };
    (Access::load(&settings, AccessMetrics::default()).unwrap(), file)
}

fn admitted(access: &Access, sent: &[&str], certificate: Option<&str>) -> Result<String, Denial> {
    let mut headers = HeaderMap::new();
    for value in sent {
        headers.append(AUTHORIZATION, value.parse().unwrap());
    }
    let caller = access.admit(&headers, certificate, SystemTime::now())?;
    Ok(format!("{caller:?}"))
}

#[test]
fn credentials_make_a_caller() {
    let (access, _file) = access();
    let known = |name: &str| Ok(format!("Caller({name:?})"));
    let (bad, none) = (Err(Denial::BadCredentials), Err(Denial::NoCredentials));
    for (sent, certificate, wanted) in [
        (&["Bearer secret"][..], None, known("token:ci")),
        (&["bearer  secret"], None, known("token:ci")),
        (&["Bearer other"], Some("spiffe://prod/a"), known("token:idle")),
        (&[], Some("spiffe://prod/a"), known("cert:spiffe://prod/a")),
        (&[], None, none),
        // Wrong ones are wrong, whatever else there is.
        (&["Bearer wrong"], Some("spiffe://prod/a"), bad.clone()),
        (&["Bearer Secret"], None, bad.clone()),
        (&["Bearer"], None, bad.clone()),
        (&["Bearer "], None, bad.clone()),
        (&["Basic c2VjcmV0"], None, bad.clone()),
        (&["secret"], None, bad.clone()),
        (&["Bearer secret", "Bearer secret"], None, bad),
    ] {
        assert_eq!(admitted(&access, sent, certificate), wanted, "{sent:?} {certificate:?}");
    }
}

#[test]
fn nothing_is_allowed_that_is_not_granted() {
    let (access, _file) = access();
    let caller = |sent: &str| {
        let headers = [(AUTHORIZATION, sent.parse().unwrap())].into_iter().collect();
        access.admit(&headers, None, SystemTime::now()).unwrap()
    };
    let (ci, idle) = (caller("Bearer secret"), caller("Bearer other"));
    for (right, model, wanted) in [
        (Right::Infer, "resnet", true),
        (Right::Describe, "resnet", true),
        (Right::Control, "resnet", false),
        (Right::Infer, "Resnet", false),
        (Right::Infer, "", false),
        (Right::Infer, "bert", false),
    ] {
        assert_eq!(ci.may(right, model).is_ok(), wanted, "{right:?} {model}");
        assert!(idle.may(right, model).is_err());
    }
    assert!(ci.sees("resnet") && !ci.sees("bert") && !idle.sees("resnet"));
    assert!(ci.tenant().is_some() && ci.tenant() != idle.tenant());
    let told = ci.may(Right::Infer, "be\nrt").unwrap_err().to_string();
    assert_eq!(told, r#""token:ci" has no right to infer model "be\nrt""#);
}

#[test]
fn who_has_passed_no_gate_is_nobody() {
    let (access, _file) = access();
    let nobody = http::Extensions::new();
    assert_eq!(access.caller(&nobody).unwrap_err(), Denial::NoCredentials);
    assert!(Access::open().caller(&nobody).unwrap().may(Right::Control, "any").is_ok());
}

#[test]
fn what_holds_no_more_ends_an_open_call() {
    let (access, file) = access();
    let headers = [(AUTHORIZATION, "Bearer secret".parse().unwrap())].into_iter().collect();
    let caller = access.admit(&headers, None, SystemTime::now()).unwrap();
    assert!(caller.may(Right::Infer, "resnet").is_ok());
    // The same name, another secret.
    let text = std::fs::read_to_string(file.path()).unwrap().replace(SECRET, &"0".repeat(64));
    std::fs::write(file.path(), text).unwrap();
    let (_, table) = read(file.path()).unwrap();
    access.0.as_ref().unwrap().table.store(table.into());
    assert_eq!(caller.may(Right::Infer, "resnet"), Err(Denial::BadCredentials));
    assert!(!caller.sees("resnet"));
}
