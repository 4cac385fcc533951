//! [`Condemned`]: a session that is about to be ended because its server is silent.

use std::sync::Arc;
use std::time::Duration;

use super::abandon::cancel;
use super::drain::DrainStream;
use super::handle::SessionHandle;
use super::pending::CopyIn;
use super::pipeline::Pipeline;
use super::verdict::Verdict;
use crate::util::clock::Moment;

/// A session whose stream is taken, so that its statements wait for the verdict alone. If it is dropped, it ends
/// without one.
#[derive(Debug)]
pub(crate) struct Condemned {
    session: Arc<SessionHandle>,
    stream: Option<DrainStream>,
    silence: Duration,
    is_alone: bool,
}

impl SessionHandle {
    /// Returns whether a response is outstanding, the server has taken all of its request, and everything that the
    /// server has sent is read. A server that waits for data of a COPY owes nothing.
    pub(super) fn is_unanswered(&self) -> bool {
        self.waiters().is_exhausted() && is_unanswered(&self.lock())
    }

    /// Condemns the session if it is still unanswered after a `silence`, and has had no more than so many `responses`: the
    /// statement that waits is the same.
    pub(super) fn condemn(
        self: &Arc<Self>,
        silence: Duration,
        responses: u64,
    ) -> Option<Condemned> {
        let mut pipeline = self.lock();
        pipeline.read_available();
        let is_silent = self.status().still_for(&Moment::now()) >= silence;
        let is_same = self.status().responses() == responses;
        if !is_silent || !is_same || !is_unanswered(&pipeline) {
            return None;
        }
        let is_alone = pipeline.requests.outstanding_within(u64::MAX) == 1;
        let stream = pipeline.take_stream();
        Some(Condemned {
            session: Arc::clone(self),
            stream,
            silence,
            is_alone,
        })
    }
}

impl Condemned {
    /// Returns whether a single statement waits: of several, some may have run.
    pub(crate) fn is_alone(&self) -> bool {
        self.is_alone
    }

    /// Ends the session: its statements fail as the verdict says.
    pub(crate) fn end(self, verdict: Verdict) {
        self.end_with(verdict);
    }

    /// As [`end`](Self::end), and asks the server to cancel what may still run there.
    pub(crate) fn cancel(mut self, verdict: Verdict) {
        self.end_with(verdict);
        if let Some(stream) = self.stream.take() {
            cancel(self.session.canceller(), stream);
        }
    }

    fn end_with(&self, verdict: Verdict) {
        let error = verdict.error(self.silence);
        self.session.status().end_with(error.clone());
        self.session.lock().set_lost(error);
    }
}

impl Drop for Condemned {
    fn drop(&mut self) {
        if !self.session.status().has_ended() {
            self.end_with(Verdict::ProcessIdle);
        }
    }
}

fn is_unanswered(pipeline: &Pipeline) -> bool {
    let requests = &pipeline.requests;
    let owes = requests
        .current()
        .is_some_and(|request| request.copy_in != CopyIn::TakesData);
    let is_open = pipeline.channel.is_some() && pipeline.is_awaited();
    owes && is_open && pipeline.output.is_empty() && !requests.is_full()
}
