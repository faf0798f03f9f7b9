//! The way in: octets from the socket, requests and their content from the machine. Content goes to whoever reads it,
//! at that one's pace; what nobody wants is read away, up to a measure.

use super::*;

/// Whether there is room for content.
enum Room {
    Yes,
    /// Something else moved first; look again.
    Made,
    No,
}

/// What became of the input.
enum Consumed {
    /// Something was taken, or something else moved.
    Some,
    /// More input is needed.
    NeedMore,
    /// Nothing may be taken for now.
    Blocked,
}

impl Long<'_> {
    pub(super) fn poll_input(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        let mut moved = false;
        loop {
            match self.consume(cx) {
                Consumed::Some => moved = true,
                Consumed::Blocked => return Ok(moved | self.poll_read(cx, INPUT_KEPT_BYTES)?),
                Consumed::NeedMore if self.end_of_input => return Ok(moved),
                Consumed::NeedMore => {
                    if !self.poll_read(cx, usize::MAX)? {
                        return Ok(moved);
                    }
                    moved = true;
                }
            }
        }
    }

    /// Reads, unless more than `kept_max` octets wait already.
    fn poll_read(&mut self, cx: &mut Context<'_>, kept_max: usize) -> io::Result<bool> {
        if self.end_of_input || self.input.len() - self.at >= kept_max {
            return Ok(false);
        }
        // Asked first: room for input is not made, and zeroed, at every turn of a slow handler.
        match self.session.stream.poll_read_ready(cx) {
            Poll::Pending => return Ok(false),
            Poll::Ready(ready) => ready?,
        }
        if self.at > 0 {
            self.input.drain(..self.at);
            self.at = 0;
        }
        let before = self.input.len();
        self.input.resize(before + INPUT_STEP_BYTES, 0);
        let read = self.session.stream.poll_read(cx, &mut self.input[before..]);
        let got = match &read {
            Poll::Ready(Ok(n)) => *n,
            _ => 0,
        };
        self.input.truncate(before + got);
        match read {
            Poll::Pending => Ok(false),
            Poll::Ready(Ok(0)) => {
                self.end_of_input = true;
                Ok(true)
            }
            Poll::Ready(Ok(n)) => {
                self.received_bytes += n as u64;
                Ok(true)
            }
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                self.end_of_input = true;
                Ok(true)
            }
            Poll::Ready(Err(error)) => Err(error),
        }
    }

    fn consume(&mut self, cx: &mut Context<'_>) -> Consumed {
        if self.session.machine.is_receiving_content() {
            self.consume_content(cx)
        } else if self.may_take_request() {
            self.consume_head()
        } else {
            Consumed::Blocked
        }
    }

    /// Pipelined requests are taken early only while all that wait are safe (9112-9.3.2-02a).
    fn may_take_request(&self) -> bool {
        !self.queue.is_empty()
            && self.ending.is_none()
            && self.switch.is_none()
            && self.queue.len() < self.settings.limits.concurrent_requests_max
            && self.queue.iter().all(|in_flight| in_flight.safe)
    }

    fn consume_head(&mut self) -> Consumed {
        if self.at == self.input.len() {
            // The end between requests is no fault: what is owed is still sent (half-close).
            return Consumed::NeedMore;
        }
        let mut request = Request::new(self.session.peer.clone());
        let received =
            self.session.machine.receive(&self.input[self.at..], self.end_of_input, &mut request.head);
        match received {
            Ok((taken, Received::Head)) => {
                self.at += taken;
                request.renew();
                let safe = request.head.method.is_safe() && !request.head.framing.has_body();
                if safe {
                    self.handle(request);
                } else {
                    let state = State::Waiting(Box::new(request));
                    self.queue.push_back(InFlight {
                        state,
                        interim: None,
                        meta: None,
                        notes: None,
                        safe: false,
                    });
                }
                Consumed::Some
            }
            Ok((taken, Received::NeedMore)) => {
                self.at += taken;
                Consumed::NeedMore
            }
            Ok((taken, _)) => {
                self.at += taken;
                Consumed::Blocked
            }
            Err(why) => {
                // Answered after those before it; the machine says when it is its turn.
                let state = State::Ready(Box::new(refusal::malformed(why)));
                self.queue.push_back(InFlight { state, interim: None, meta: None, notes: None, safe: false });
                Consumed::Some
            }
        }
    }

    fn consume_content(&mut self, cx: &mut Context<'_>) -> Consumed {
        match self.make_room(cx) {
            Room::Yes => {}
            Room::Made => return Consumed::Some,
            Room::No => return Consumed::Blocked,
        }
        let mut unused = Default::default();
        let input = &self.input[self.at..];
        let (taken, received) = match self.session.machine.receive(input, self.end_of_input, &mut unused) {
            Ok(found) => found,
            Err(why) => {
                self.content_failed(why);
                return Consumed::Some;
            }
        };
        self.at += taken;
        let mut data = match received {
            Received::Data(data) => Bytes::copy_from_slice(data),
            Received::Decoded(data) => Bytes::from(data),
            Received::End(trailers) => {
                if let Intake::Pipe { writer, .. } = std::mem::replace(&mut self.intake, Intake::Nowhere) {
                    writer.complete(trailers.map(Box::new));
                }
                return Consumed::Some;
            }
            _ => return Consumed::NeedMore,
        };
        self.intake_bytes += data.len() as u64;
        if !matches!(self.intake, Intake::Pipe { .. }) {
            self.drained_bytes += data.len() as u64;
            if self.drained_bytes > self.session.machine.config().limits.drain_bytes_max {
                // Too much to read away for the sake of one more exchange.
                self.overdrawn = true;
            }
        }
        if let Intake::Pipe { writer, early } = &mut self.intake {
            if self.intake_bytes > self.settings.limits.content_bytes_max {
                self.content_too_large();
                return Consumed::Some;
            }
            match writer.push(&mut data) {
                // What does not fit waits, and nothing more is read before it has gone.
                Ok(_) => *early = data,
                Err(_) => self.intake = Intake::Unwanted,
            }
        }
        Consumed::Some
    }

    /// Whether content may be read for whoever takes it.
    fn make_room(&mut self, cx: &mut Context<'_>) -> Room {
        let machine = &mut self.session.machine;
        let Intake::Pipe { writer, early } = &mut self.intake else {
            // Read away once the response is on its way; before that the handler may still be thinking.
            return if machine.content_is_unwanted() { Room::Yes } else { Room::No };
        };
        match writer.poll_ready(cx) {
            Poll::Pending => return Room::No,
            Poll::Ready(Ok(_)) => {}
            Poll::Ready(Err(_)) => {
                self.intake = Intake::Unwanted;
                return Room::Made;
            }
        }
        if !early.is_empty() {
            // Cannot fail: the reader was there a moment ago.
            let _ = writer.push(early);
            return Room::Made;
        }
        if machine.awaits_continue() && machine.allows_interim() && writer.poll_wanted(cx).is_ready() {
            // 9110-10.1.1-06: now that somebody reads.
            let sent = machine.interim(Status::CONTINUE, &Fields::new(), &mut self.out);
            debug_assert!(sent.is_ok());
            return Room::Made;
        }
        Room::Yes
    }

    /// The client broke the framing of its content, or broke off.
    fn content_failed(&mut self, why: Malformed) {
        let reason = if why == Malformed::BodyCut { Reason::Truncated } else { Reason::Malformed };
        if let Intake::Pipe { writer, .. } = std::mem::replace(&mut self.intake, Intake::Nowhere) {
            writer.abort(reason);
        }
        self.replace_last(refusal::malformed(why));
    }

    fn content_too_large(&mut self) {
        if let Intake::Pipe { writer, .. } = std::mem::replace(&mut self.intake, Intake::Unwanted) {
            writer.abort(Reason::TooLarge);
        }
        self.replace_last(too_large());
    }

    /// Answers the request whose content failed with this instead of what its handler says, unless that is on
    /// its way already.
    pub(super) fn replace_last(&mut self, response: Response) {
        let on_its_way = self.sending.is_some() && self.queue.len() == 1;
        match self.queue.back_mut() {
            Some(last) if !on_its_way => last.state = State::Ready(Box::new(response)),
            _ => {}
        }
    }
}
