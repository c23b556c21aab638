//! `tidegate init`: a `tidegate.toml` in which every key is explained.

use std::fs::OpenOptions;
use std::io::{self, ErrorKind, Write};

use super::args::InitArgs;
use crate::config::{DEFAULT_FILE, init::template};
use crate::exit::Exit;

pub(super) fn run(args: &InitArgs) -> Exit {
    if args.path.as_os_str() == "-" {
        super::say(&template());
        return Exit::Ok;
    }
    let path = if args.path.is_dir() { args.path.join(DEFAULT_FILE) } else { args.path.clone() };
    let name = path.display();
    let written = write(&path, args.force);
    match written {
        Ok(()) => {
            let next = format!("name your server in it, then `tidegate check --config {name}`");
            super::say(&format!("{name}: written; {next}\n"));
            Exit::Ok
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            eprintln!("tidegate: {name} is there already; --force replaces it");
            Exit::Usage
        }
        Err(error) => {
            eprintln!("tidegate: {name} can't be written: {error}");
            Exit::Failure
        }
    }
}

fn write(path: &std::path::Path, force: bool) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true);
    if force {
        options.create(true).truncate(true)
    } else {
        options.create_new(true)
    };
    options.open(path)?.write_all(template().as_bytes())
}
