//! What [`Forward`] does with a call that was admitted, by what it is. Called by its first phase.

use std::sync::Arc;

use bytes::Bytes;
use http::header;
use pingora::proxy::Session;

use super::context::{Context, unless_gone};
use super::depart::{Stopped, depart};
use super::durable::Submission;
use super::endpoint::{self, MAX_INPUT, NamedCall};
use super::forward::Forward;
use super::kept::FromKept;
use super::whole::WholeCall;
use super::{Call, carried, durable, intake, retry, whole};
use crate::respond::{Answer, Refusal};

impl Forward {
    /// Lets a call go that is streamed; whether it was answered instead.
    pub(super) async fn forward(
        &self,
        session: &mut Session,
        context: &mut Context,
        call: Box<Call>,
    ) -> pingora::Result<bool> {
        call.ready.common.policy.begin();
        context.call = Some(call);
        match depart(&self.door, session, context).await {
            Ok(()) => {}
            Err(Stopped::Refused(refused)) => {
                let given = context.instead().unwrap_or(refused);
                return self.answer(session, context, given).await.map(|()| true);
            }
            Err(Stopped::Gone) => return retry::left(),
        }
        // A service that does not know `100 Continue` would leave the caller waiting.
        if headers_expect(session) {
            session.write_continue_response().await?;
        }
        Ok(false)
    }

    /// Answers a call from what is kept.
    pub(super) fn answer_kept(&self, session: &Session, context: &mut Context, kept: FromKept) -> Answer {
        let FromKept { answer, verdict, behind, ready } = kept;
        context.course.cache = Some(verdict);
        let (from, plain) = (&session.req_header().headers, |text: &str| ready.common.redact(text));
        let kept = carried::whole(&self.door, (from, &Bytes::new()), Some(&answer), &plain);
        carried::note(context, kept);
        if let Some(behind) = behind {
            behind.begin(&self.door);
        }
        answer
    }

    /// Makes a call that is read whole.
    pub(super) async fn whole(
        &self,
        session: &mut Session,
        context: &mut Context,
        call: WholeCall,
    ) -> pingora::Result<Answer> {
        let (method, from) = (session.req_header().method.clone(), session.req_header().headers.clone());
        context.known.place = Some(call.place());
        let caller = call.caller.clone().unwrap_or_default();
        let body = match intake::whole_body(session, call.max_body(), self.door.room(&caller)).await {
            Ok(body) => body,
            Err(refused) => return Ok(refused),
        };
        context.sent = self.now();
        let call = Arc::new(call);
        let run = whole::run(&self.door, &call, (&method, &from), body.clone(), &mut context.course);
        let Some(given) = unless_gone(session, run).await else { return retry::left() };
        let kept = carried::whole(&self.door, (&from, &body), Some(&given), &|text| call.redact(text));
        carried::note(context, kept);
        let took = self.now().saturating_sub(context.sent);
        let asked = context.course.attempts > 0 && Refusal::of(&given).is_none();
        context.service = Some((took, given.status.as_u16())).filter(|_| asked);
        Ok(given)
    }

    /// Runs an endpoint by name.
    pub(super) async fn named(&self, session: &mut Session, call: &NamedCall) -> pingora::Result<Answer> {
        let body = match intake::whole_body(session, MAX_INPUT, self.door.room(&call.caller)).await {
            Ok(body) => body,
            Err(refused) => return Ok(refused),
        };
        let run = endpoint::run(&self.door.parts.outbound, call, &body);
        let Some(given) = unless_gone(session, run).await else { return retry::left() };
        let Answer { body, .. } = &given;
        let whose = (&call.integration.id, Some(&call.caller));
        Ok(match self.door.parts.clients.hold(whose, body.clone()) {
            Some(body) => Answer { body, ..given },
            None => {
                Refusal::ServiceAnswerInvalid.answer(&format!("the endpoint's result is not given: {}", whole::NO_ROOM))
            }
        })
    }

    /// Takes a durable call in.
    pub(super) async fn accept(&self, session: &mut Session, submission: Submission) -> Answer {
        let (method, from) = (session.req_header().method.clone(), session.req_header().headers.clone());
        match intake::whole_body(session, submission.max_body, self.door.room(&submission.caller)).await {
            Ok(body) => durable::accept(&self.door, submission, (method, &from), body).await,
            Err(refused) => refused,
        }
    }
}

fn headers_expect(session: &mut Session) -> bool {
    session.req_header().headers.contains_key(header::EXPECT) && !session.is_body_done()
}
