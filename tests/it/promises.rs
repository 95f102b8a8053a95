//! The page of promises names tests that are there.

use std::path::Path;

/// All sources of tests, by path.
fn sources() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders = vec![root.join("src"), root.join("tests")];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let is_source = path.extension().is_some_and(|end| end == "rs" || end == "py");
            if path.is_dir() {
                folders.push(path);
            } else if is_source {
                let inner = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
                files.push((inner, std::fs::read_to_string(&path).unwrap()));
            }
        }
    }
    files
}

/// The lines of a page that name tests; each must name one that is there, or a command.
fn lines(page: &str) -> usize {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(root.join("docs").join(page)).unwrap();
    let sources = sources();
    let mut lines = 0;
    for line in page.lines().filter(|line| line.starts_with("| ") && line.contains('`')) {
        lines += 1;
        let named: Vec<&str> = line.split('`').skip(1).step_by(2).collect();
        let tests: Vec<&&str> = named.iter().filter(|name| name.contains("::")).collect();
        let is_measured = named.iter().any(|name| name.starts_with("make "));
        assert!(!tests.is_empty() || is_measured, "nothing proves: {line}");
        for test in tests {
            let mut parts = test.split("::");
            let (room, file) = (parts.next().unwrap(), parts.next().unwrap());
            let (name, rest) = (parts.next().unwrap(), parts.next());
            assert_eq!(rest, None, "{test}");
            let is_there = sources.iter().any(|(path, text)| {
                path.contains(room)
                    && path.contains(file)
                    && (text.contains(&format!("fn {name}("))
                        || text.contains(&format!("def {name}(")))
            });
            assert!(is_there, "{test}");
        }
    }
    lines
}

#[test]
fn every_test_that_a_promise_names_is_there() {
    assert_eq!(lines("promises.md"), 22);
}

#[test]
fn every_test_that_a_trial_names_is_there() {
    assert_eq!(lines("trials.md"), 60);
}
