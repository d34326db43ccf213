//! Signing in by OAuth 2.0, as applications and browsers do it, over real sockets and on both engines.

mod account;
mod attacks;
mod browser;
mod device;
mod flow;
mod forms;

use maru::config::{Config, Setting};
use maru_tests::server::Listening;
use maru_tests::{Engine, TestServer, User};

use browser::{Application, Browser, Shown};

/// Where the servers of these tests say that they are reached.
const BASE: &str = "https://chat.example.org";

fn with_base(config: &mut Config) {
    config.public_base_url = Some(Setting::read(BASE).unwrap());
}

/// A server that listens, with alice, who is at home on one device.
struct Place {
    server: TestServer,
    listening: Listening,
    alice: User,
}

impl Place {
    async fn on(engine: Engine) -> Self {
        Self::with(engine, |_| {}).await
    }

    async fn with(engine: Engine, change: impl FnOnce(&mut Config)) -> Self {
        let server = TestServer::start_with(engine, |config| {
            with_base(config);
            change(config);
        });
        let server = server.await;
        let listening = server.listen().await;
        let alice = listening.api.register("alice").await;
        Self {
            server,
            listening,
            alice,
        }
    }

    fn browser(&self) -> Browser {
        Browser::new(&self.listening.api)
    }

    async fn application(&self) -> Application {
        Application::register(&self.listening.api, "Thunderbird").await
    }

    /// A browser in which alice is signed in, before the page that asks for her consent.
    async fn before_consent(&self, application: &Application, device: &str) -> (Browser, Shown) {
        let mut browser = self.browser();
        let path = application.request(device, &[]);
        let page = browser.get(&path).await;
        let signed_in = browser.sign_in(&path, &page, "alice", &self.alice.password).await;
        assert_eq!(signed_in.status, 303, "{}", signed_in.text);
        let consent = browser.get(&path).await;
        assert_eq!(consent.status, 200, "{}", consent.text);
        (browser, consent)
    }

    /// The code that an application gets when alice allows what it asks for.
    async fn code(&self, application: &Application, device: &str) -> String {
        let (mut browser, consent) = self.before_consent(application, device).await;
        let path = application.request(device, &[]);
        let allowed = browser.send(&path, &consent, &[("step", "allow")]).await;
        allowed.answered("code")
    }

    /// What an application gets in the end, and alice as its user.
    async fn session(&self, application: &Application, device: &str) -> (User, String) {
        let code = self.code(application, device).await;
        let tokens = application.exchange(&code).await.ok();
        let refresh = tokens["refresh_token"].as_str().unwrap().to_owned();
        let mut user = self.alice.with_token(&tokens["access_token"]);
        device.clone_into(&mut user.device);
        (user, refresh)
    }
}
