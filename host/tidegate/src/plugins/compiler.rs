//! Compiles plugins in a process of its own: this program once more, with bounds on its memory and time.
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
use tidegate_policy::{Compiler, LoadError, Settings, precompile};

/// This program, whatever has become of its file.
const THIS_PROGRAM: &str = "/proc/self/exe";
/// Lower than everything that serves.
const NICENESS: i32 = 15;
/// Of what a compiler says when it fails, in bytes.
const WORDS_MAX: u64 = 4 << 10;

/// Starts a process for each plugin.
#[derive(Clone, Copy, Debug)]
pub struct ChildProcess;

// SAFETY: the process runs this program's own file, which `/proc/self/exe` is even when that was replaced on disk, and what
// it writes is `precompile`'s answer (`compile_for_parent`). Nobody else has the other end of the pipe. A process that was
// ended early has a bad status, and then what it wrote is thrown away.
unsafe impl Compiler for ChildProcess {
    fn compile(&self, settings: Settings, _: u64, component: &[u8]) -> Result<Vec<u8>, LoadError> {
        match start(settings) {
            Ok(child) => finish(child, component),
            Err(error) => {
                tracing::warn!(%error, "no process can be started to compile a plugin: this one does it");
                precompile(settings, component)
            }
        }
    }
}

fn start(settings: Settings) -> io::Result<Child> {
    Command::new(THIS_PROGRAM)
        .arg("compile-plugin")
        .arg(format!("--instances={}", settings.instances))
        .arg(format!("--memory-bytes-max={}", settings.memory_bytes_max))
        // It needs none of our secrets.
        .env_clear()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
}

fn finish(mut child: Child, component: &[u8]) -> Result<Vec<u8>, LoadError> {
    let (Some(mut to), Some(from), Some(words)) =
        (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return Err(LoadError::Compile("the compiler has no pipes".to_owned()));
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
            let _ = to.write_all(component);
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
    let failed = |why: String| Err(LoadError::Compile(why));
    match (output, status) {
        (Ok(Ok((code, _))), Ok(status)) if status.success() => Ok(code),
        (Ok(Ok((_, text))), Ok(status)) if status.code().is_some() => failed(text),
        (Ok(_), Ok(status)) => failed(format!(
            "the compiler was ended ({status}): the plugin takes more than {} s or {} bytes to compile",
            PLUGIN_COMPILER_CPU_TIME_MAX.as_secs(),
            PLUGIN_COMPILER_MEMORY_MAX,
        )),
        (Ok(_), Err(error)) => failed(format!("the compiler is lost: {error}")),
        (Err(_), _) => failed(format!("not within {} s", PLUGIN_LOAD_TIME_MAX.as_secs())),
    }
}

/// The other side: compiles the component on standard input to standard output.
///
/// # Errors
/// Why it does not compile, in words for whoever uploaded it.
pub fn compile_for_parent(instances: usize, memory_bytes_max: usize) -> Result<(), String> {
    lower_priority();
    let bound = |resource, most: u64| {
        let limit = Rlimit { current: Some(most), maximum: Some(most) };
        setrlimit(resource, limit)
            .map_err(|error| format!("the compiler can't be bounded: {error}"))
    };
    bound(Resource::Data, PLUGIN_COMPILER_MEMORY_MAX)?;
    bound(Resource::Cpu, PLUGIN_COMPILER_CPU_TIME_MAX.as_secs())?;
    bound(Resource::Core, 0)?;
    let mut component = Vec::new();
    // A module has become a component meanwhile, which is a little larger.
    let most = 2 * POLICY_COMPONENT_BYTES_MAX as u64;
    let read = io::stdin().lock().take(most).read_to_end(&mut component);
    read.map_err(|error| format!("the plugin can't be read: {error}"))?;
    let settings = Settings { instances, memory_bytes_max, ..Settings::default() };
    let code = precompile(settings, &component).map_err(|error| match error {
        LoadError::Compile(words) => words,
        other => other.to_string(),
    })?;
    let mut out = io::stdout().lock();
    let written = out.write_all(&code).and_then(|()| out.flush());
    written.map_err(|error| format!("the code can't be written: {error}"))
}

/// Of the thread that calls it, as Linux has it.
pub(super) fn lower_priority() {
    if let Err(error) = setpriority_process(None, NICENESS) {
        tracing::debug!(%error, "plugins compile at full priority");
    }
}
