//! A drop guard that tells the supervisor of an actor's end, also by a panic: actix itself says
//! nothing, and messages to a dead actor fail only when someone sends one.

use actix::Recipient;

use crate::messages::ActorGone;

/// Held by an actor; dropped with it.
#[derive(Debug)]
pub(crate) struct DeathWatch {
    supervisor: Recipient<ActorGone>,
    name: &'static str,
    generation: Option<u32>,
}

impl DeathWatch {
    pub(crate) fn new(
        supervisor: Recipient<ActorGone>,
        name: &'static str,
        generation: Option<u32>,
    ) -> Self {
        Self { supervisor, name, generation }
    }
}

impl Drop for DeathWatch {
    fn drop(&mut self) {
        // Without a running system there is no supervisor left to tell.
        if actix::System::try_current().is_none() {
            return;
        }
        let told = self.supervisor.send(ActorGone { name: self.name, generation: self.generation });
        actix::spawn(async move {
            // Err means that the supervisor has ended: the process is about to.
            let _supervisor_gone = told.await;
        });
    }
}
