//! One member of etcd, and our connection to it.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use etcd_client::{Client, ConnectOptions, KvClient};

use super::fault::{Fault, needs_login};
use super::pool::Call;
use crate::clock::Moment;
use crate::store::StoreError;

/// The largest answer to one read that we take.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// One member of etcd. It is connected to, and logged in, when it is first needed, and again after a failure.
#[derive(Debug)]
pub(super) struct Endpoint {
    url: String,
    options: ConnectOptions,
    /// The connection with its number. Held while connecting, so that many calls log in once.
    slot: tokio::sync::Mutex<Option<(u64, Box<Connection>)>>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The number of the connection to use: an older one in the slot is thrown away.
    number: u64,
    /// When the member last answered on this connection.
    heard: Option<Moment>,
}

/// A connection, and the number by which it can be reported as broken.
#[derive(Clone)]
pub(super) struct Connection {
    pub(super) number: u64,
    pub(super) client: Client,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("number", &self.number).finish_non_exhaustive()
    }
}

impl Endpoint {
    pub(super) fn new(url: String, options: ConnectOptions) -> Self {
        Self { url, options, slot: tokio::sync::Mutex::default(), state: Mutex::default() }
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// The connection, which may have to be made first.
    pub(super) async fn connection(&self) -> Result<Box<Connection>, Fault> {
        let mut slot = self.slot.lock().await;
        let number = self.state().number;
        if let Some((made, connection)) = &*slot
            && *made == number
        {
            return Ok(connection.clone());
        }
        *slot = None;
        // With a user this logs in; without one it does not even touch the network.
        let options = self.options.clone().with_require_leader(true);
        let client = Box::pin(Client::connect([&self.url], Some(options))).await;
        let client = client.map_err(|error| Fault { nothing_happened: true, ..self.fault(number, &error) })?;
        let connection = Box::new(Connection { number, client });
        *slot = Some((number, connection.clone()));
        Ok(connection)
    }

    /// A connection of its own that also a member without a leader answers.
    pub(super) async fn without_leader(&self) -> Result<Box<Client>, StoreError> {
        let client = Box::pin(Client::connect([&self.url], Some(self.options.clone()))).await;
        client.map(Box::new).map_err(|error| Fault::new(&self.url, &error).error)
    }

    /// Makes a call. Only a forgotten login is mended here: what else to try is the pool's to say.
    pub(super) async fn call<T>(&self, call: &impl Call<T>) -> Result<T, Fault> {
        let connection = self.connection().await?;
        let kv = || -> KvClient { connection.client.kv_client().max_decoding_message_size(ANSWER_BYTES_MAX) };
        let mut answer = call(kv()).await;
        if answer.as_ref().is_err_and(needs_login) {
            self.log_in_again(&connection).await?;
            answer = call(kv()).await;
        }
        let answer = answer.map_err(|error| self.fault(connection.number, &error))?;
        self.heard(connection.number);
        Ok(answer)
    }

    /// Gets a new token for a connection.
    pub(super) async fn log_in_again(&self, connection: &Connection) -> Result<(), Fault> {
        let refreshed = connection.client.refresh_token().await;
        refreshed.map_err(|error| Fault { nothing_happened: true, ..self.fault(connection.number, &error) })
    }

    /// Takes note of an error on a connection and says what it means.
    pub(super) fn fault(&self, number: u64, error: &etcd_client::Error) -> Fault {
        let fault = Fault::new(&self.url, error);
        if fault.connection_is_good {
            self.heard(number);
        } else {
            self.discard(number);
        }
        fault
    }

    /// The member has shown a sign of life on this connection.
    pub(super) fn heard(&self, number: u64) {
        let mut state = self.state();
        if state.number == number {
            state.heard = Some(Moment::now());
        }
    }

    /// Nobody takes this connection any more. It may be half open, so that only a new one can tell whether the member
    /// lives; calls that already use it may still end well.
    pub(super) fn discard(&self, number: u64) {
        let mut state = self.state();
        if state.number == number {
            *state = State { number: number + 1, heard: None };
        }
    }

    /// The number of the connection that is used now.
    pub(super) fn number(&self) -> u64 {
        self.state().number
    }

    /// The member has answered lately.
    pub(super) fn answered_within(&self, age: Duration) -> bool {
        self.state().heard.is_some_and(|heard| heard.elapsed() < age)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
