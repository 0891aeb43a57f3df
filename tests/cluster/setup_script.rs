//! Possible fault of `make setup`: it upgrades, and so restarts, the PostgreSQL that a machine has.
//! The package tools are replaced by scripts that write down what they were asked for.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

/// Tools of a machine that has the server of PostgreSQL 16.3 without its headers.
const TOOLS: [(&str, &str); 4] = [
    ("apt-get", "echo \"$*\" >>\"$ASKED\"; case \"$*\" in *-s*) cat \"$SIMULATED\" ;; esac"),
    ("apt-cache", "echo '  Candidate: 16.9-1'"),
    ("dpkg-query", "case \"$*\" in *server-dev*) exit 1 ;; esac; echo 'installed 16.3-1'"),
    ("sudo", "exec \"$@\""),
];

/// What the tools were asked for, and what the script said.
fn setup(simulated: &str) -> (String, String) {
    let place = std::env::temp_dir().join(format!("setup_{}", uuid::Uuid::new_v4().simple()));
    fs::create_dir_all(&place).unwrap();
    for (name, script) in TOOLS {
        let file = place.join(name);
        fs::write(&file, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
    }
    let (asked, simulation) = (place.join("asked"), place.join("simulated"));
    fs::write(&simulation, simulated).unwrap();
    let path = std::env::var("PATH").unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/setup.sh");
    let output = Command::new("bash")
        .arg(script)
        .env("PATH", format!("{}:{path}", place.display()))
        // a home without cargo, so that no directory comes before the tools
        .envs([("PG_MAJOR", "16"), ("CARGO_HOME", "/nonexistent")])
        .env_remove("PG_CONFIG")
        .envs([("ASKED", &asked), ("SIMULATED", &simulation)])
        .output()
        .unwrap();
    let asked = fs::read_to_string(&asked).unwrap_or_default();
    fs::remove_dir_all(&place).unwrap();
    (asked, String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_postgresql_that_is_there_stays_at_its_version() {
    let (asked, said) = setup("Inst postgresql-server-dev-16 (16.3-1 Debian)\n");
    let installs: Vec<&str> =
        asked.lines().filter(|line| line.contains("install") && line.contains("16")).collect();
    assert!(!installs.is_empty(), "{asked}\n{said}");
    for line in installs {
        assert!(line.contains("postgresql-server-dev-16=16.3-1"), "{line}");
        assert!(!line.split(' ').any(|package| package.starts_with("postgresql-16")), "{line}");
        assert!(line.contains("-s ") || line.contains("--no-upgrade"), "{line}");
    }
}

#[test]
fn setup_stops_rather_than_upgrade_it() {
    let (asked, said) = setup("Inst postgresql-16 [16.3-1] (16.9-1 Debian)\n");
    assert!(said.contains("would upgrade the PostgreSQL that is there"), "{said}");
    assert!(
        !asked.lines().any(|line| line.contains("server-dev") && !line.contains("-s ")),
        "{asked}"
    );
}
