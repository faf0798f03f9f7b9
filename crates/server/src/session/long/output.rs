//! The way out: heads of responses, their content, and what the socket takes of them. A response that cannot be completed
//! is cut so that nobody takes it for whole (design, invariant 9).

use super::*;

impl Long<'_> {
    /// Writes the head of the response that is due, if it is ready.
    pub(super) fn begin_response(&mut self) -> bool {
        if self.sending.is_some() || self.switch.is_some() || self.ending.is_some() {
            return false;
        }
        let Some(front @ InFlight { state: State::Ready(_), .. }) = self.queue.front_mut() else {
            return false;
        };
        let placeholder = State::Ready(Box::new(Response::new(Status::OK)));
        let State::Ready(response) = std::mem::replace(&mut front.state, placeholder) else { return false };
        let mut response = *response;
        front.notes = response.notes.take();
        if let Some(meta) = &mut front.meta {
            meta.first_octet_us = meta.started.elapsed().as_micros() as u64;
        }
        if let ResponseContent::Switch(_) = response.content {
            return self.begin_switch(response);
        }
        // Requests that have come already are answered by a worker that is stopping, too.
        let more = self.queue.len() > 1 || self.at < self.input.len();
        let last = self.session.worker.ledger().is_stopping() && !more;
        let close = response.close.or(last.then_some(CloseReason::Stopping));
        let reading = self.is_read_by_handler();
        let (machine, out) = (&mut self.session.machine, &mut self.out);
        let written =
            self.session.worker.with_date(|date| write_head(machine, &response, close, reading, date, out));
        let framing = match written {
            Ok(framing) => framing,
            Err(misuse) => {
                tracing::error!(status = %response.status, %misuse, "a response could not be written");
                return self.fall_back(misuse);
            }
        };
        let machine = &mut self.session.machine;
        let silent = machine.body().is_ok_and(|body| body.is_silent());
        let content_bytes = match &response.content {
            // Counted as it flows.
            ResponseContent::Pipe(..) | ResponseContent::Flow(..) => 0,
            content => content.length().filter(|_| !silent).unwrap_or(0),
        };
        let source = match response.content {
            _ if silent => Source::Done,
            ResponseContent::Bytes(bytes) => Source::Bytes(bytes),
            ResponseContent::File(range) => Source::Parts([Part::File(range)].into()),
            ResponseContent::Parts(parts) => Source::Parts(parts.into()),
            ResponseContent::Pipe(reader, _) => Source::Pipe(reader),
            ResponseContent::Flow(flowing, _) => Source::Flow(flowing),
            ResponseContent::Empty | ResponseContent::Described(_) | ResponseContent::Switch(_) => {
                Source::Done
            }
        };
        let until_close = matches!(framing, Framing::UntilClose { .. });
        self.until_close |= until_close;
        let (status, fields) = (response.status, response.fields);
        self.sending = Some(Sending { source, status, fields, content_bytes, until_close });
        true
    }

    /// Whether the content still to come is for the front request, and its handler reads it.
    fn is_read_by_handler(&self) -> bool {
        let alive = matches!(&self.intake, Intake::Pipe { writer, .. } if !writer.is_reader_gone());
        alive && self.queue.len() == 1 && !self.session.machine.awaits_continue()
    }

    /// A response that the machine does not write as it is: 500 instead, if that is still possible.
    fn fall_back(&mut self, misuse: Misuse) -> bool {
        if let Some(front) = self.queue.front_mut()
            && self.session.machine.owes_response()
            && misuse != Misuse::OutOfTurn
        {
            front.state = State::Ready(Box::new(refusal::internal_error()));
        } else {
            self.ending = Some(CloseReason::Internal);
        }
        true
    }

    fn begin_switch(&mut self, response: Response) -> bool {
        let ResponseContent::Switch(switch) = response.content else { return false };
        let (machine, out) = (&mut self.session.machine, &mut self.out);
        let fields = response.fields.get();
        let switched =
            self.session.worker.with_date(|date| machine.switch(response.status, fields, date, out));
        if let Err(misuse) = switched {
            tracing::error!(%misuse, "a handler switched protocols without being asked");
            return self.fall_back(misuse);
        }
        self.record(response.status, &response.fields, 0, Persistence::Close(CloseReason::Switched));
        self.queue.pop_front();
        self.switch = Some(switch);
        true
    }

    /// Moves content of the response into the output, up to a measure.
    pub(super) fn fill(&mut self, cx: &mut Context<'_>) -> bool {
        let mut moved = false;
        while self.out.len() - self.out_at < GATHERED_BYTES && self.tail.is_empty() && self.file.is_none() {
            let Some(sending) = &mut self.sending else { break };
            if !sending.lent().is_empty() {
                if let Source::Flow(flowing) = &mut sending.source {
                    flowing.poll_upload(cx);
                }
                break;
            }
            let step = match &mut sending.source {
                Source::Bytes(bytes) => {
                    let bytes = std::mem::take(bytes);
                    sending.source = Source::Done;
                    self.put(bytes)
                }
                Source::Parts(parts) => match parts.pop_front() {
                    Some(Part::Bytes(bytes)) if bytes.len() < SMALL_PIECE_BYTES => self.put(bytes),
                    // Files and pieces are never under a transfer coding, see `put_file`.
                    Some(Part::Bytes(bytes)) => {
                        let run = take_run(parts);
                        self.put_run(bytes, run)
                    }
                    Some(Part::File(range)) => self.put_file(range),
                    None => self.end_response(None),
                },
                Source::Pipe(reader) => match reader.poll_next(cx) {
                    Poll::Pending => break,
                    Poll::Ready(Next::Data(bytes)) => {
                        sending.content_bytes += bytes.len() as u64;
                        self.put(bytes)
                    }
                    Poll::Ready(Next::Complete(trailers)) => self.end_response(trailers),
                    Poll::Ready(Next::Aborted(reason)) => {
                        tracing::debug!(%reason, "the content of a response broke off");
                        self.cut();
                        Ok(())
                    }
                },
                Source::Flow(flowing) => match flowing.poll_next(cx) {
                    Poll::Pending => break,
                    Poll::Ready(Flowed::Data) => self.put_lent(),
                    Poll::Ready(Flowed::Complete(trailers)) => self.end_response(trailers),
                    Poll::Ready(Flowed::Aborted(reason)) => {
                        tracing::debug!(%reason, "the content of a response broke off");
                        self.cut();
                        Ok(())
                    }
                },
                Source::Done => self.end_response(None),
            };
            if let Err(misuse) = step {
                tracing::error!(%misuse, "a response was cut");
                self.cut();
            }
            moved = true;
        }
        moved
    }

    fn put(&mut self, bytes: Bytes) -> Result<(), Misuse> {
        let body = self.session.machine.body()?;
        if bytes.len() < SMALL_PIECE_BYTES || !body.is_transparent() {
            return body.write(&bytes, &mut self.out);
        }
        body.begin(bytes.len(), &mut self.out)?;
        self.suffix = body.after();
        self.tail = bytes;
        Ok(())
    }

    /// A large piece and others behind it, to be sent in one call.
    fn put_run(&mut self, first: Bytes, run: VecDeque<Bytes>) -> Result<(), Misuse> {
        let count = first.len() + run.iter().map(Bytes::len).sum::<usize>();
        let body = self.session.machine.body()?;
        body.begin(count, &mut self.out)?;
        self.suffix = body.after();
        (self.tail, self.run) = (first, run);
        Ok(())
    }

    /// Content that a connection lends: gathered if it is small, else sent from where it is.
    fn put_lent(&mut self) -> Result<(), Misuse> {
        let Some(Sending { source: Source::Flow(flowing), content_bytes, .. }) = &mut self.sending else {
            return Ok(());
        };
        let body = self.session.machine.body()?;
        let count = flowing.lent().len();
        *content_bytes += count as u64;
        if count < SMALL_PIECE_BYTES || !body.is_transparent() {
            body.write(flowing.lent(), &mut self.out)?;
            flowing.advance(count);
        } else {
            body.begin(count, &mut self.out)?;
            self.suffix = body.after();
        }
        Ok(())
    }

    fn put_file(&mut self, range: FileRange) -> Result<(), Misuse> {
        // Files are never under a transfer coding: their length is known, and `write_head` asks for none.
        self.session.machine.body()?.begin(range.length as usize, &mut self.out)?;
        if range.length > 0 {
            self.file = Some(range);
        }
        Ok(())
    }

    fn end_response(&mut self, trailers: Option<Box<Fields>>) -> Result<(), Misuse> {
        let trailers = trailers.map(|mut trailers| {
            trailers.retain(|t| t.known.is_none_or(|known| known.allowed_in_trailers()));
            trailers
        });
        let persistence = self.session.machine.finish(trailers.as_deref(), &mut self.out)?;
        if let Some(sent) = self.sending.take() {
            self.record(sent.status, &sent.fields, sent.content_bytes, persistence);
        }
        self.queue.pop_front();
        if let Persistence::Close(reason) = persistence {
            self.ending = Some(reason);
            self.queue.clear();
        }
        Ok(())
    }

    /// The response cannot be completed: its end must not look like one (design, invariant 9).
    fn cut(&mut self) {
        // What was gathered goes out; the missing end tells the rest.
        let _ = self.session.machine.finish(None, &mut Vec::new());
        if let Some(sent) = self.sending.take() {
            self.reset |= sent.until_close;
            let close = Persistence::Close(CloseReason::ResponseCut);
            self.record(sent.status, &sent.fields, sent.content_bytes, close);
        }
        self.queue.clear();
        self.file = None;
        self.ending = Some(CloseReason::ResponseCut);
    }

    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>) -> io::Result<bool> {
        let mut moved = false;
        loop {
            let lent = self.sending.as_ref().map_or(&[][..], Sending::lent);
            let behind = if self.tail.is_empty() { lent } else { &self.tail[..] };
            let sent = if self.out_at < self.out.len() || !behind.is_empty() {
                let mut slices = [IoSlice::new(&[]); 2 + RUN_PIECES_MAX];
                slices[0] = IoSlice::new(&self.out[self.out_at..]);
                slices[1] = IoSlice::new(behind);
                for (slice, piece) in slices[2..].iter_mut().zip(&self.run) {
                    *slice = IoSlice::new(piece);
                }
                let from = usize::from(self.out_at == self.out.len());
                let until = if behind.is_empty() { 1 } else { 2 + self.run.len() };
                self.session.stream.try_write_vectored(&slices[from..until]).map(|n| self.advance(n))
            } else if let Some(range) = &mut self.file {
                let step = range.length.min(FILE_STEP_BYTES as u64) as usize;
                match self.session.stream.try_send_file(&range.file, &mut range.offset, step) {
                    Ok(0) => {
                        // Fault P24: the file shrank. Never pad, never lie about the length.
                        tracing::warn!("a file became shorter while it was sent");
                        self.cut();
                        return Ok(true);
                    }
                    Ok(n) => {
                        self.sent_bytes += n as u64;
                        range.length -= n as u64;
                        if range.length == 0 {
                            self.file = None;
                        }
                        // One step a round: other connections want their turn.
                        self.blocked = false;
                        return Ok(true);
                    }
                    Err(error) => Err(error),
                }
            } else {
                self.blocked = false;
                return Ok(moved);
            };
            match sent {
                Ok(()) => moved = true,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    match self.session.stream.poll_write_ready(cx) {
                        Poll::Ready(ready) => ready?,
                        Poll::Pending => {
                            self.blocked = true;
                            return Ok(moved);
                        }
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn advance_tail(&mut self, mut sent: usize) {
        while sent >= self.tail.len() {
            sent -= self.tail.len();
            let Some(next) = self.run.pop_front() else {
                self.tail = Bytes::new();
                return;
            };
            self.tail = next;
        }
        let _ = self.tail.split_to(sent);
    }

    fn advance(&mut self, mut sent: usize) {
        self.sent_bytes += sent as u64;
        let from_out = sent.min(self.out.len() - self.out_at);
        self.out_at += from_out;
        sent -= from_out;
        if sent > 0 && !self.tail.is_empty() {
            self.advance_tail(sent);
        } else if sent > 0
            && let Some(Sending { source: Source::Flow(flowing), .. }) = &mut self.sending
        {
            flowing.advance(sent);
        }
        if self.out_at == self.out.len() {
            self.out.clear();
            self.out_at = 0;
            if self.tail.is_empty() && self.sending.as_ref().is_none_or(|sending| sending.lent().is_empty()) {
                self.out.extend_from_slice(std::mem::take(&mut self.suffix));
            }
        }
    }
}

/// Takes the large pieces in memory that come next.
fn take_run(parts: &mut VecDeque<Part>) -> VecDeque<Bytes> {
    let is_large = |part: &Part| matches!(part, Part::Bytes(bytes) if bytes.len() >= SMALL_PIECE_BYTES);
    let count = parts.iter().take(RUN_PIECES_MAX).take_while(|part| is_large(part)).count();
    let pieces = parts.drain(..count).filter_map(|part| match part {
        Part::Bytes(bytes) => Some(bytes),
        Part::File(_) => None,
    });
    pieces.collect()
}
