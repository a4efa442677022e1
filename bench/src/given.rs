//! What the benchmarks of a server are called with:
//! `[--seconds N] [--server FILE] [--only TEXT] [--json FILE]`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::figures::Figures;
use crate::product;

const USAGE: &str = "[--seconds N] [--server FILE] [--only TEXT] [--json FILE]";

/// Reads the arguments, measures in a scratch directory, and writes the figures down if asked to.
pub fn measure(name: &str, run: impl FnOnce(&Path, &Path, &mut Figures, Duration)) {
    given(name, |server, figures, time| {
        if !server.exists() {
            let server = server.display();
            eprintln!("{server} is missing: cargo build --release -p leasehold-server");
            std::process::exit(2);
        }
        let scratch = tempfile::tempdir().expect("a scratch directory");
        run(server, scratch.path(), figures, time);
    });
}

/// The same for a benchmark without our server.
pub fn measure_alone(name: &str, run: impl FnOnce(&mut Figures, Duration)) {
    given(name, |_, figures, time| run(figures, time));
}

fn given(name: &str, run: impl FnOnce(&Path, &mut Figures, Duration)) {
    let usage = |why: &str| -> ! {
        eprintln!("{why}\nusage: {name} {USAGE}");
        std::process::exit(2);
    };
    let (mut seconds, mut json, mut server) = (2.0, None, product::server_beside());
    let mut figures = Figures::default();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let value = arguments.next().unwrap_or_else(|| usage("a value is missing"));
        match argument.as_str() {
            "--seconds" => seconds = value.parse().unwrap_or_else(|_| usage("a number, please")),
            "--server" => server = PathBuf::from(value),
            "--only" => figures.only = value,
            "--json" => json = Some(PathBuf::from(value)),
            other => usage(&format!("unknown argument {other}")),
        }
    }
    run(&server, &mut figures, Duration::from_secs_f64(seconds));
    if let Some(path) = json {
        std::fs::write(&path, format!("{:#}\n", figures.to_json()))
            .expect("the figures are written");
    }
}
