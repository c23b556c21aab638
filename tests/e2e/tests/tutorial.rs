//! The tutorial of docs/plugins.md, read from the document and done: what it says is what happens.

use crate::own::Folder;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;
use tidegate_test_support::tidegate::binary;
use tidegate_test_support::{free_port, poll, target_directory};

/// How long the demo may take to stop and remove everything.
const DEMO_STOP_TIME_MAX: Duration = Duration::from_secs(60);
const HEADING: &str = "## From nothing to a live policy in ten minutes";

/// What the document has its reader do.
#[derive(Debug)]
enum Step {
    Run(String),
    Write(PathBuf, String),
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// The steps of the tutorial, in order. A file is named before its block, in backticks, behind "into".
fn steps() -> Vec<Step> {
    let document = fs::read_to_string(repository().join("docs/plugins.md")).unwrap();
    let (_, tutorial) = document.split_once(HEADING).unwrap();
    let (tutorial, _) = tutorial.split_once("\n## ").unwrap();
    let mut steps = Vec::new();
    let mut rest = tutorial;
    while let Some((before, after)) = rest.split_once("\n```") {
        let (block, after) = after.split_once("\n```").unwrap();
        let (language, block) = block.split_once('\n').unwrap();
        let block = format!("{block}\n");
        steps.push(match language {
            "sh" => Step::Run(block),
            _ => {
                let named = before.rsplit_once("into `").and_then(|(_, name)| name.split_once('`'));
                Step::Write(named.unwrap().0.into(), block)
            }
        });
        rest = after;
    }
    steps
}

/// The demo, stopped when the test ends, however it ends. What it says has a reader until then.
struct Demo(Child, BufReader<ChildStdout>);

impl Drop for Demo {
    fn drop(&mut self) {
        // The shell's own: a small system has no other.
        let _ = Command::new("sh").args(["-c", &format!("kill -TERM {}", self.0.id())]).status();
        if !poll(DEMO_STOP_TIME_MAX, || !matches!(self.0.try_wait(), Ok(None))) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }
}

fn shell(script: &str, folder: &Path) -> Command {
    let programs = binary().parent().unwrap().display().to_string();
    let path = std::env::var("PATH").unwrap_or_default();
    let mut shell = Command::new("sh");
    shell.args(["-e", "-c", script]).current_dir(folder);
    shell.env("PATH", format!("{programs}:{path}:/usr/lib/postgresql/15/bin"));
    // What is built stays for the next run; the plugins' standard library is there already.
    shell.env("CARGO_TARGET_DIR", target_directory().join("plugins"));
    shell.env_remove("RUSTFLAGS").env_remove("CARGO").env_remove("RUSTC");
    shell.env_remove("RUSTC_WORKSPACE_WRAPPER").env_remove("CLIPPY_ARGS");
    shell
}

/// Starts the demo as the document does, and waits until it says that it is ready.
fn start_demo(script: &str, folder: &Path) -> Demo {
    let mut child =
        shell(&format!("exec {script}"), folder).stdout(Stdio::piped()).spawn().unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    let mut demo = Demo(child, output);
    let mut said = demo.1.by_ref().lines().map_while(Result::ok);
    assert!(said.any(|line| line.contains("Tidegate is ready")), "the demo ended early");
    demo
}

/// The whole session of the second terminal, with a mark before each block.
fn session(steps: &[Step]) -> String {
    let mut script = String::new();
    for (number, step) in steps.iter().enumerate() {
        script.push_str(&format!("echo '== {number}'\n"));
        match step {
            Step::Run(commands) => script.push_str(commands),
            Step::Write(file, text) => {
                let file = file.display();
                script.push_str(&format!("cat > {file} <<'END OF FILE'\n{text}END OF FILE\n"));
            }
        }
    }
    script
}

#[test]
fn the_tutorial_does_what_it_says() {
    let mut steps = steps();
    let ports = [free_port().unwrap().to_string(), free_port().unwrap().to_string()];
    for step in &mut steps {
        if let Step::Run(commands) = step {
            *commands = commands.replace("6432", &ports[0]).replace("6433", &ports[1]);
        }
    }
    let folder = Folder::new();
    let root = folder.file("");
    symlink(repository().join("sdk"), root.join("sdk")).unwrap();
    let Step::Run(first) = steps.remove(0) else { panic!("it begins with the demo") };
    let demo = start_demo(first.trim(), &root);
    let output = shell(&session(&steps), &root).output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}\n{errors}");
    assert!(
        !errors.contains("`tidegate-sdk` (lib) generated"),
        "warnings for a newcomer: {errors}"
    );
    let blocks: Vec<&str> = told.split("== ").skip(1).collect();
    assert_eq!(blocks.len(), steps.len(), "{told}");
    let block = |command: &str| {
        let is_it = |step: &Step| matches!(step, Step::Run(text) if text.contains(command));
        blocks[steps.iter().position(is_it).unwrap()]
    };
    let tried = block("plugin test");
    assert!(tried.contains("3 cases: all as expected") && tried.contains("static"), "{tried}");
    let replayed = block("plugin replay");
    assert!(replayed.contains("after:  primary [fresh]"), "{replayed}");
    assert!(!replayed.contains("FROM orders") && replayed.contains("some differ"), "{replayed}");
    let shadow = block("--shadow");
    assert!(shadow.contains("\"candidate\": \"primary [fresh]\""), "{shadow}");
    let (before, after) = block("after.jsonl").rsplit_once("\"server\":").unwrap();
    assert!(before.contains("\"server\":\"replica"), "{before}");
    assert_eq!(after.trim(), "\"primary\"");
    let last = block("rollback");
    assert!(last.contains("routing   active    route-balanced"), "{last}");
    assert!(last.contains("routing   previous  my-router"), "{last}");
    drop(demo);
}
