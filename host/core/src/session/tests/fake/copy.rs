//! COPY, in both protocols.

use super::*;

impl Fake {
    pub(super) fn copy_begins(&mut self, by: By) {
        frame::write(&mut self.held, b'G', |out| out.extend([0, 0, 1, 0, 0]));
        self.flush();
        self.copying = Some(CopyIn { by, rows: 0 });
    }

    pub(super) fn copy_out(&mut self) {
        frame::write(&mut self.held, b'H', |out| out.extend([0, 0, 1, 0, 0]));
        let shown = self.row("copy");
        for _ in 0..2 {
            frame::write(&mut self.held, b'd', |out| out.extend(shown.as_bytes()));
        }
        frame::write(&mut self.held, b'c', |_| {});
    }

    pub(super) fn copy_message(&mut self, kind: u8, body: &[u8]) {
        let Some(copy) = &mut self.copying else { return };
        let by = copy.by;
        let failed = match kind {
            tag::COPY_DATA if body == b"bad" => failure("22P04", "bad copy data"),
            tag::COPY_DATA => {
                copy.rows += 1;
                return;
            }
            tag::COPY_FAIL => failure("57014", "COPY from stdin failed"),
            tag::COPY_DONE => {
                let tag = format!("COPY {}", copy.rows);
                self.copying = None;
                if by == By::Execute {
                    self.pipelined = true;
                    return backend::command_complete(&mut self.held, tag.as_bytes());
                }
                if self.left.is_empty() {
                    self.finish();
                }
                backend::command_complete(&mut self.held, tag.as_bytes());
                let several = self.block == Block::Implicit || !self.left.is_empty();
                return self.run_rest(several);
            }
            // Flush and Sync are ignored.
            _ => return,
        };
        self.error(&failed);
        match by {
            By::Query => self.ready(),
            By::Execute => self.skipping = true,
        }
    }
}
