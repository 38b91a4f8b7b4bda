//! `mkimage DIRECTORY`: writes the images of the demo and the tests as archives into DIRECTORY, from what a Debian machine has:
//! a static busybox (package busybox-static).

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use knarr_image::{Config, Entry, Image, Layer, pause};

const BUSYBOX: &str = "/bin/busybox";
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/home:/bin/false\n";
const GROUP: &str = "root:x:0:\nnogroup:x:65534:\n";
/// Answers every request with the pod's own name, so that a client sees which replica it reached. The shell stays the first process, because
/// a first process without a handler does not hear SIGTERM, and every pod would be there for its whole grace.
const WEB: &str = r#"#!/bin/sh
mkdir -p /www/cgi-bin
printf '%s\n' "${GREETING:-hello} from $(hostname)" > /www/index.html
httpd -f -p "${PORT:-8080}" -h /www &
trap 'kill $!' TERM INT
wait $!
"#;

fn main() -> Result<()> {
    let Some(directory) = std::env::args_os().nth(1).map(PathBuf::from) else { bail!("usage: mkimage DIRECTORY") };
    fs::create_dir_all(&directory)?;
    for (file, image) in [("pause", pause()), ("busybox", busybox()?), ("web", web()?)] {
        let path = directory.join(format!("{file}.tar"));
        image.write(File::create(&path).with_context(|| path.display().to_string())?)?;
        println!("{} {}", path.display(), image.names.join(" "));
    }
    Ok(())
}

fn busybox() -> Result<Image> {
    Ok(Image { names: vec!["docker.io/library/busybox:latest".into()], layers: vec![base()?], config: shell() })
}

fn web() -> Result<Image> {
    let mut layer = Layer::default();
    layer.push(Entry::file("web", WEB.into(), 0o755));
    let config = Config { entrypoint: vec!["/web".into()], command: Vec::new(), ..shell() };
    Ok(Image {
        names: vec!["knarr.local/web:1".into(), "knarr.local/web:2".into()],
        layers: vec![base()?, layer],
        config,
    })
}

fn shell() -> Config {
    Config { command: vec!["sh".into()], environment: vec![PATH.into()], ..Config::default() }
}

fn base() -> Result<Layer> {
    let mut layer = Layer::default();
    for directory in
        ["bin", "etc", "root", "home", "proc", "sys", "dev", "usr", "usr/bin", "usr/sbin", "sbin", "var", "mnt"]
    {
        layer.push(Entry::directory(directory, 0o755));
    }
    layer.push(Entry::directory("tmp", 0o1777));
    layer.push(
        Entry::copy("bin/busybox", Path::new(BUSYBOX), 0o755).context("is the package busybox-static installed?")?,
    );
    for applet in applets()? {
        layer.push(Entry::link(format!("bin/{applet}"), "/bin/busybox"));
    }
    layer.push(Entry::file("etc/passwd", PASSWD.into(), 0o644));
    layer.push(Entry::file("etc/group", GROUP.into(), 0o644));
    Ok(layer)
}

fn applets() -> Result<Vec<String>> {
    let output = Command::new(BUSYBOX).arg("--list").output().context("is the package busybox-static installed?")?;
    let names = String::from_utf8(output.stdout)?;
    Ok(names.lines().filter(|name| *name != "busybox").map(str::to_string).collect())
}
