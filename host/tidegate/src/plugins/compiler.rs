//! Reads the types of plugins and compiles them in a process of its own: this program once more, with bounds on its memory
//! and time.
//!
//! Compiling takes tens of times a plugin's size in memory, which goes back with the process; a plugin that is made to
//! break or to fill the compiler breaks and fills nothing else; and clients do not wait for memory maps and allocators that
//! a compiling thread of low priority holds.

use std::io::{self, Read as _, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;

use rustix::process::{Resource, Rlimit, setpriority_process, setrlimit};
use tidegate_core::limits::{
    PLUGIN_CODE_BYTES_MAX, PLUGIN_COMPILER_CPU_TIME_MAX, PLUGIN_COMPILER_MEMORY_MAX,
    PLUGIN_LOAD_TIME_MAX, POLICY_COMPONENT_BYTES_MAX,
};
use tidegate_policy::{Compiler, LoadError, Settings, encode, precompile};

/// This program, whatever has become of its file.
const THIS_PROGRAM: &str = "/proc/self/exe";
/// Lower than everything that serves.
const NICENESS: i32 = 15;
/// Of what a compiler says when it fails, in bytes.
const WORDS_MAX: u64 = 4 << 10;

/// Starts a process for each plugin.
#[derive(Clone, Copy, Debug)]
pub struct ChildProcess;

/// What such a process does.
#[derive(Clone, Copy, Debug)]
pub enum Work {
    /// A core module with embedded types becomes a component.
    Encode,
    /// A component becomes machine code, for an engine with these settings.
    Compile(Settings),
}

// SAFETY: the process runs this program's own file, which `/proc/self/exe` is even when that was replaced on disk, and what
// it writes is `precompile`'s answer (`work_for_parent`). Nobody else has the other end of the pipe. A process that was
// ended early has a bad status, and then what it wrote is thrown away.
unsafe impl Compiler for ChildProcess {
    fn encode(&self, module: &[u8]) -> Result<Vec<u8>, LoadError> {
        let child = start(Work::Encode).map_err(|error| {
            LoadError::Types(format!("no process can be started to read its types: {error}"))
        })?;
        finish(child, module).map_err(LoadError::Types)
    }

    fn compile(&self, settings: Settings, _: u64, component: &[u8]) -> Result<Vec<u8>, LoadError> {
        match start(Work::Compile(settings)) {
            Ok(child) => finish(child, component).map_err(LoadError::Compile),
            Err(error) => {
                tracing::warn!(%error, "no process can be started to compile a plugin: this one does it");
                precompile(settings, component)
            }
        }
    }
}

fn start(work: Work) -> io::Result<Child> {
    let mut command = Command::new(THIS_PROGRAM);
    match work {
        Work::Encode => command.arg("encode-plugin"),
        Work::Compile(settings) => command
            .arg("compile-plugin")
            .arg(format!("--instances={}", settings.instances))
            .arg(format!("--memory-bytes-max={}", settings.memory_bytes_max)),
    };
    // It needs none of our secrets.
    command.env_clear();
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn()
}

/// What the process makes of the bytes, or its words.
fn finish(mut child: Child, bytes: &[u8]) -> Result<Vec<u8>, String> {
    let (Some(mut to), Some(from), Some(words)) =
        (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return Err("the compiler has no pipes".to_owned());
    };
    let (done, ended) = mpsc::channel();
    let read = move || {
        let mut code = Vec::new();
        let read = from.take(PLUGIN_CODE_BYTES_MAX).read_to_end(&mut code);
        let mut text = String::new();
        let _ = words.take(WORDS_MAX).read_to_string(&mut text);
        // Nobody waits for it any more when it took too long.
        let _ = done.send(read.map(|_| (code, text)));
    };
    let output = thread::scope(|scope| {
        scope.spawn(read);
        scope.spawn(move || {
            // What does not read to the end has failed, and says why.
            let _ = to.write_all(bytes);
        });
        let output = ended.recv_timeout(PLUGIN_LOAD_TIME_MAX);
        if output.is_err() {
            // Which ends both threads: their pipes have no other end then.
            let _ = child.kill();
        }
        output
    });
    // It has closed its pipes, or was killed: this does not wait long.
    let status = child.wait();
    match (output, status) {
        (Ok(Ok((code, _))), Ok(status)) if status.success() => Ok(code),
        (Ok(Ok((_, text))), Ok(status)) if status.code().is_some() => Err(text),
        (Ok(_), Ok(status)) => Err(format!(
            "the process that did it was ended ({status}): the plugin breaks it, or takes more than {} s or {} bytes",
            PLUGIN_COMPILER_CPU_TIME_MAX.as_secs(),
            PLUGIN_COMPILER_MEMORY_MAX,
        )),
        (Ok(_), Err(error)) => Err(format!("the compiler is lost: {error}")),
        (Err(_), _) => Err(format!("not within {} s", PLUGIN_LOAD_TIME_MAX.as_secs())),
    }
}

/// The other side: works on what comes from standard input, and writes what becomes of it to standard output.
///
/// # Errors
/// Why nothing does, in words for whoever uploaded it.
pub fn work_for_parent(work: Work) -> Result<(), String> {
    lower_priority();
    let bound = |resource, most: u64| {
        let limit = Rlimit { current: Some(most), maximum: Some(most) };
        setrlimit(resource, limit)
            .map_err(|error| format!("the compiler can't be bounded: {error}"))
    };
    bound(Resource::Data, PLUGIN_COMPILER_MEMORY_MAX)?;
    bound(Resource::Cpu, PLUGIN_COMPILER_CPU_TIME_MAX.as_secs())?;
    bound(Resource::Core, 0)?;
    let mut bytes = Vec::new();
    // A module has become a component meanwhile, which is a little larger.
    let most = 2 * POLICY_COMPONENT_BYTES_MAX as u64;
    let read = io::stdin().lock().take(most).read_to_end(&mut bytes);
    read.map_err(|error| format!("the plugin can't be read: {error}"))?;
    let made = match work {
        Work::Encode => encode(&bytes),
        Work::Compile(settings) => precompile(settings, &bytes),
    };
    let made = made.map_err(|error| match error {
        // The parent says which.
        LoadError::Types(words) | LoadError::Compile(words) => words,
        other => other.to_string(),
    })?;
    let mut out = io::stdout().lock();
    let written = out.write_all(&made).and_then(|()| out.flush());
    written.map_err(|error| format!("what was made can't be written: {error}"))
}

/// Of the thread that calls it, as Linux has it.
pub(super) fn lower_priority() {
    if let Err(error) = setpriority_process(None, NICENESS) {
        tracing::debug!(%error, "plugins compile at full priority");
    }
}
