//! COPY in and out.

use tidegate_test_support::{Client, differential, pipeline};

fn count(c: &mut Client, table: &str) -> String {
    c.value(&format!("SELECT count(*) FROM {table}")).unwrap()
}

#[test]
fn trap_65_a_sync_inside_copy_in_is_swallowed() {
    differential("DROP TABLE IF EXISTS t65; CREATE TABLE t65 (a int)", |c| {
        let copy = pipeline().parse("", "COPY t65 FROM STDIN", &[]).bind("", "", &[]).execute("");
        c.send(copy.clone().sync());
        c.expect("1 2 G");
        c.send(pipeline().copy_data(b"1\n2\n").flush().sync().copy_done().sync());
        c.expect("C ZI");
        c.send(copy.copy_data(b"3\n").copy_done().sync());
        c.expect("1 2 G C ZI");
        assert_eq!(count(c, "t65"), "3");
    });
}

#[test]
fn trap_65_another_message_inside_copy_in_is_a_violation() {
    differential("DROP TABLE IF EXISTS t65b; CREATE TABLE t65b (a int)", |c| {
        c.send(pipeline().query("COPY t65b FROM STDIN"));
        c.expect("G");
        c.send(pipeline().query("SELECT 1"));
        while c.read_message_or_end().is_some_and(|message| message.tag != b'Z') {}
    });
}

#[test]
fn trap_66_what_follows_an_error_in_copy_in_is_dropped_simple() {
    differential("DROP TABLE IF EXISTS t66; CREATE TABLE t66 (a int)", |c| {
        c.send(pipeline().query("COPY t66 FROM STDIN"));
        c.expect("G");
        c.send(pipeline().copy_data(b"x\n"));
        c.send(pipeline().copy_data(b"1\n").copy_data(b"2\n").copy_done());
        c.expect("E:22P02 ZI");
        c.send(pipeline().copy_data(b"3\n").copy_done().query("SELECT 1"));
        c.expect("T D C ZI");
        assert_eq!(count(c, "t66"), "0");
    });
}

#[test]
fn trap_66_what_follows_an_error_in_copy_in_is_dropped_extended() {
    differential("DROP TABLE IF EXISTS t66e; CREATE TABLE t66e (a int)", |c| {
        c.send(
            pipeline().parse("", "COPY t66e FROM STDIN", &[]).bind("", "", &[]).execute("").flush(),
        );
        c.expect("1 2 G");
        c.send(pipeline().copy_data(b"x\n").copy_data(b"1\n").copy_done().sync());
        c.expect("E:22P02 ZI");
        assert_eq!(count(c, "t66e"), "0");
    });
}

#[test]
fn trap_66_an_error_in_copy_in_fails_the_transaction() {
    differential("DROP TABLE IF EXISTS t66t; CREATE TABLE t66t (a int)", |c| {
        c.query("BEGIN");
        c.send(pipeline().query("COPY t66t FROM STDIN"));
        c.expect("G");
        c.send(pipeline().copy_data(b"1\nx\n").copy_done());
        c.expect("E:22P02 ZE");
        c.query("SELECT 1");
        c.query("ROLLBACK");
    });
}

#[test]
fn trap_67_copy_messages_without_a_copy_are_dropped() {
    differential("", |c| {
        c.send(pipeline().copy_data(b"1\n").copy_done().copy_fail("late").query("SELECT 1"));
        c.expect("T D C ZI");
        c.send(pipeline().copy_done());
        c.send(pipeline().parse("", "SELECT 2", &[]).bind("", "", &[]).execute("").sync());
        c.expect("1 2 D C ZI");
    });
}

#[test]
fn trap_68_copy_fail_ends_the_copy_with_an_error() {
    differential("DROP TABLE IF EXISTS t68; CREATE TABLE t68 (a int)", |c| {
        c.send(pipeline().query("COPY t68 FROM STDIN"));
        c.expect("G");
        c.send(pipeline().copy_data(b"1\n").copy_fail("changed my mind"));
        c.expect("E:57014 ZI");
        assert_eq!(count(c, "t68"), "0");
    });
}

#[test]
fn trap_69_an_error_inside_copy_out_ends_it() {
    differential("", |c| {
        c.send(
            pipeline().query("COPY (SELECT 1 / (3 - n) FROM generate_series(1, 9) n) TO STDOUT"),
        );
        c.expect("H d d E:22012 ZI");
        c.send(
            pipeline()
                .parse("", "COPY (SELECT generate_series(1, 3)) TO STDOUT", &[])
                .bind("", "", &[])
                .execute("")
                .sync(),
        );
        c.expect("1 2 H d d d c C ZI");
    });
}

#[test]
fn trap_71_copies_among_other_statements_of_one_query() {
    differential("DROP TABLE IF EXISTS t71; CREATE TABLE t71 (a int)", |c| {
        c.send(pipeline().query(
            "COPY t71 FROM STDIN; SELECT count(*) FROM t71; COPY t71 FROM STDIN; COPY t71 TO STDOUT",
        ));
        c.expect("G");
        c.send(pipeline().copy_data(b"1\n").copy_done());
        c.expect("C T D C G");
        c.send(pipeline().copy_data(b"2\n").copy_done());
        c.expect("C H d d c C ZI");
    });
}

#[test]
fn copy_data_is_cut_where_it_pleases_the_client() {
    differential("DROP TABLE IF EXISTS tcut; CREATE TABLE tcut (a text)", |c| {
        c.send(pipeline().query("COPY tcut FROM STDIN"));
        c.expect("G");
        let lines = "some text\n".repeat(1000);
        let mut data = pipeline();
        for piece in lines.as_bytes().chunks(7) {
            data = data.copy_data(piece);
        }
        for piece in data.copy_data(b"").copy_done().bytes().chunks(11) {
            c.send(piece);
        }
        c.expect("C ZI");
        assert_eq!(count(c, "tcut"), "1000");
    });
}
