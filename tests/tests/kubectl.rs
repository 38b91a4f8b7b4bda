//! kubectl against the control plane alone: every session of `transcripts/control_plane`, side by side on one cluster.

use std::path::Path;
use std::sync::Arc;

use knarr_tests::{Cluster, Options, Transcript, kubectl_path};
use libtest_mimic::{Arguments, Failed, Trial};

fn main() {
    let arguments = Arguments { test_threads: Some(4), ..Arguments::from_args() };
    let ready = kubectl_path().is_some();
    if !ready {
        eprintln!("no kubectl on the PATH: the sessions are skipped");
    }
    let directory = "transcripts/control_plane";
    let sessions = Transcript::all(Path::new(directory)).expect("the sessions can be read");
    let cluster =
        (ready && !arguments.list).then(|| Arc::new(Cluster::up(&Options::default()).expect("a control plane starts")));
    let trials = sessions.into_iter().map(|session| {
        let (name, cluster) = (session.name.clone(), cluster.clone());
        let run = move || {
            let cluster = cluster.as_ref().ok_or("no cluster")?;
            session.run(cluster, &[]).map_err(|error| Failed::from(format!("{error:#}")))
        };
        Trial::test(name, run).with_ignored_flag(!ready)
    });
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    // Leaving the process would not purge it.
    drop(cluster);
    conclusion.exit();
}
