//! One side reads more slowly than the other sends: nothing hangs, no byte is lost, and the proxy's memory stays as it was.

use crate::own::{SOON, policies_answer, pool_of, tidegate};
use std::io::Write;
use tidegate_test_support::clusters::ROLE;
use tidegate_test_support::{
    Client, Message, Pipeline, Tidegate, pipeline, shared_cluster, test_database, wait_until,
};

/// What the proxy may grow by while it passes on tens of MB, in KiB: buffers, no queues.
const GROWTH_KIB_MAX: u64 = 4 * 1024;
/// Bytes of each large row, notice or parameter. The replies that one client may be owed (three for each statement) are
/// then 55 MB, more than the system's socket buffers grow to (Linux by default: 33 MB to receive, 4 MB to send; they
/// grow that far when the proxy is slow), so that the server is blocked whichever of the two bounds the proxy meets first.
const PIECE_BYTES: usize = 40 << 10;
/// Pieces of one run: 80 MB, and more replies than one client may be owed.
const PIECES: usize = 2_000;

/// Bytes that the system takes for a client that reads nothing.
const UNREAD_BYTES_MAX: usize = 64 << 10;

/// A client on a pool of one connection, and how much memory the proxy had before it sent anything.
struct Flow {
    client: Client,
    /// Connected to the server itself.
    observer: Client,
    database: String,
    tidegate: Tidegate,
    kib_before: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Server {
    Runs,
    Blocked,
    Reads,
}

impl Flow {
    fn new(name: &str) -> Flow {
        let database = test_database(name);
        // What is read runs where the test looks.
        let settings = format!("{}[routing]\nreads = \"primary\"\n", pool_of(1));
        let tidegate = tidegate(shared_cluster(), &database, &settings);
        let mut client = Client::connect(&tidegate.url(ROLE, &database));
        client.query("SELECT 1");
        client.keep_unread_bytes(UNREAD_BYTES_MAX);
        let observer = Client::connect(&shared_cluster().primary().url(ROLE, "postgres"));
        // The default policies are compiled beside the first clients, which takes memory of its own.
        wait_until(SOON, "the default policies answer", || policies_answer(&tidegate));
        let kib_before = tidegate.resident_kib();
        Flow { client, observer, database, tidegate, kib_before }
    }

    /// What the server does, as far as it is seen from outside: runs, is blocked, or has sent all.
    fn server(&mut self) -> Server {
        let sql = format!(
            "SELECT wait_event FROM pg_stat_activity WHERE usename = '{ROLE}' AND datname = '{}' \
             AND application_name <> 'tidegate: health'",
            self.database
        );
        match self.observer.value(&sql).as_deref() {
            Some("ClientWrite") => Server::Blocked,
            Some("ClientRead") => Server::Reads,
            _ => Server::Runs,
        }
    }

    /// Waits until the server can send no more, since nobody takes it.
    #[track_caller]
    fn wait_until_server_is_blocked(&mut self) {
        wait_until(SOON, "the server waits for its reader", || self.server() == Server::Blocked);
        self.check_memory();
    }

    #[track_caller]
    fn check_memory(&self) {
        let grown = self.tidegate.resident_kib().saturating_sub(self.kib_before);
        assert!(grown < GROWTH_KIB_MAX, "the proxy has grown by {grown} KiB");
    }

    /// Reads `count` messages with this tag, others in between being passed over, and gives each to `check`.
    #[track_caller]
    fn read(&mut self, tag: u8, count: usize, mut check: impl FnMut(&Message)) {
        let mut left = count;
        while left > 0 {
            let message = self.client.read_message();
            assert_ne!(message.tag, b'E', "{}", message.describe());
            if message.tag == tag {
                check(&message);
                left -= 1;
            }
        }
    }

    /// Sends from a thread of its own, since it blocks until the server reads on; reads nothing before the server is
    /// blocked in turn. Then `read` reads.
    #[track_caller]
    fn send_unread(&mut self, messages: &Pipeline, read: impl FnOnce(&mut Flow)) {
        let mut stream = self.client.stream().try_clone().unwrap();
        std::thread::scope(|scope| {
            let sender = scope.spawn(move || stream.write_all(messages.bytes()));
            self.wait_until_server_is_blocked();
            assert!(!sender.is_finished(), "all went out, so nothing held it back");
            read(self);
            sender.join().unwrap().unwrap();
        });
    }

    #[track_caller]
    fn works_as_before(&mut self) {
        self.check_memory();
        assert_eq!(self.client.value("SELECT 1").as_deref(), Some("1"));
    }
}

/// The large text number `n`.
fn piece(n: usize) -> String {
    format!("{n:0PIECE_BYTES$}")
}

/// SQL for the pieces 0, 1, …, each as a row.
fn pieces() -> String {
    format!("SELECT lpad(n::text, {PIECE_BYTES}, '0') FROM generate_series(0, {PIECES} - 1) n")
}

/// Reads the rows of [`pieces`], always a little, and then nothing until the server has sent what can be sent. So
/// whatever the proxy passes on, up to the last byte, it cannot pass on at once.
#[track_caller]
fn read_pieces_slowly(flow: &mut Flow) {
    flow.wait_until_server_is_blocked();
    for n in 0..PIECES {
        if n % 4 == 0 {
            wait_until(SOON, "the server does nothing", || flow.server() != Server::Runs);
        }
        flow.read(b'D', 1, |row| assert_eq!(row.row(), [Some(piece(n))]));
    }
    flow.check_memory();
}

#[test]
fn trap_26_a_long_result_waits_for_a_slow_reader() {
    let mut flow = Flow::new("flow_result");
    flow.client.send(pipeline().query(&pieces()));
    read_pieces_slowly(&mut flow);
    flow.client.expect("C ZI");
    // Under a name that is replaced, and with what comes after it already sent.
    let sql = pieces();
    let long = pipeline().parse("long", &sql, &[]).bind("", "long", &[]).execute("").sync();
    flow.client.send(long.parse("", "SELECT 'after'", &[]).bind("", "", &[]).execute("").sync());
    flow.client.expect("1 2");
    read_pieces_slowly(&mut flow);
    assert_eq!(flow.client.expect("C ZI 1 2 D C ZI")[4].describe(), "D after");
    flow.works_as_before();
}

#[test]
fn trap_26_a_long_copy_out_waits_for_a_slow_reader() {
    let mut flow = Flow::new("flow_copy_out");
    flow.client.send(pipeline().query(&format!("COPY ({}) TO STDOUT", pieces())));
    flow.wait_until_server_is_blocked();
    let mut next = 0;
    flow.read(b'd', PIECES, |line| {
        assert_eq!(line.body, format!("{}\n", piece(next)).as_bytes());
        next += 1;
    });
    flow.client.expect("c C ZI");
    flow.works_as_before();
}

#[test]
fn trap_25_a_long_pipeline_goes_on_when_its_sender_reads() {
    let mut flow = Flow::new("flow_pipeline");
    flow.client.send(pipeline().parse("echo", "SELECT $1::text", &[]).sync());
    flow.client.expect("1 ZI");
    // A Sync after each statement, one after many, and one at the end alone: then the server need not send anything
    // before its buffer is full.
    for sync_every in [1, 50, PIECES] {
        let mut messages = pipeline();
        for n in 0..PIECES {
            messages = messages.bind("", "echo", &[Some(&piece(n))]).execute("");
            if (n + 1) % sync_every == 0 {
                messages = messages.sync();
            }
        }
        flow.send_unread(&messages, |flow| {
            let mut next = 0;
            flow.read(b'D', PIECES, |row| {
                assert_eq!(row.row(), [Some(piece(next))]);
                next += 1;
            });
            flow.client.expect("C ZI");
        });
        flow.works_as_before();
    }
}

#[test]
fn trap_25_a_long_copy_in_goes_on_when_its_sender_reads() {
    let mut flow = Flow::new("flow_copy_in");
    flow.client.query(
        "CREATE TABLE t (n int, a text); \
         CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS \
         $$ BEGIN RAISE NOTICE '%', NEW.a; RETURN NEW; END $$; \
         CREATE TRIGGER tell BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION tell()",
    );
    let mut messages = pipeline().query("COPY t FROM STDIN");
    for n in 0..PIECES {
        messages = messages.copy_data(format!("{n}\t{}\n", piece(n)).as_bytes());
    }
    let messages = messages.copy_done();
    flow.send_unread(&messages, |flow| {
        let mut next = 0;
        flow.read(b'N', PIECES, |notice| {
            assert_eq!(notice.field(b'M'), Some(piece(next)));
            next += 1;
        });
        flow.client.expect("C ZI");
    });
    let wanted = format!("SELECT count(*) FROM t WHERE a = lpad(n::text, {PIECE_BYTES}, '0')");
    assert_eq!(flow.client.value(&wanted), Some(PIECES.to_string()));
    flow.works_as_before();
}

#[test]
fn trap_23_a_parameter_larger_than_any_buffer_streams() {
    let mut flow = Flow::new("flow_parameter");
    let sql = "SELECT $1::text, pg_sleep(0)";
    flow.client.send(pipeline().parse("echo", sql, &[]).sync());
    flow.client.expect("1 ZI");
    let large = "x".repeat(PIECES * PIECE_BYTES);
    // As a parameter, and as the one row that comes back.
    flow.client.send(pipeline().bind("", "echo", &[Some(&large)]).execute("").sync());
    flow.wait_until_server_is_blocked();
    let row = flow.client.expect("2 D C ZI")[1].row().swap_remove(0);
    assert!(row.as_deref() == Some(large.as_str()));
    flow.works_as_before();
}
