//! One initdb for all servers. The first process makes it, and it is kept until the private tree
//! changes. A lock file keeps two test processes from making it at once.

use std::fs;
use std::path::PathBuf;
use std::sync::OnceLock;

use crate::commands::{clusters, give_to_runner, program, run, tree};

/// The data directory to copy.
pub(crate) fn template() -> PathBuf {
    static TEMPLATE: OnceLock<PathBuf> = OnceLock::new();
    TEMPLATE.get_or_init(make).clone()
}

fn make() -> PathBuf {
    let lock =
        fs::File::create(clusters().join("template.lock")).expect("opening the template's lock");
    lock.lock().expect("locking the template");
    let home = clusters().join("template");
    let (data, ready) = (home.join("data"), home.join("ready"));
    let stamp = fs::read(tree().join(".copied")).expect("reading the private tree's stamp");
    if fs::read(&ready).ok().as_ref() != Some(&stamp) {
        drop(fs::remove_dir_all(&home));
        fs::create_dir(&home).expect("making the template's directory");
        give_to_runner(&home);
        let mut initdb = program("initdb");
        initdb.args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "-N", "-D"]);
        run(initdb.arg(&data));
        fs::write(&ready, stamp).expect("marking the template ready");
    }
    data
}
