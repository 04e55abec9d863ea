//! A router that can say what it serves, so that the document of the API is held to it
//! (see [`openapi`](super::openapi)).
//!
//! The same words as axum's; an axum router does not tell its routes.

use axum::{Router, handler::Handler, routing::MethodRouter};
use http::Method;

/// Paths with what answers them.
pub(crate) struct Routes<S> {
    router: Router<S>,
    served: Vec<Served>,
}

/// A method of a path, as the router writes it.
pub(crate) type Served = (Method, &'static str);

/// What answers a path, by method.
pub(crate) struct Endpoint<S> {
    methods: Vec<Method>,
    router: MethodRouter<S>,
}

impl<S: Clone + Send + Sync + 'static> Routes<S> {
    pub(crate) fn new() -> Self {
        Self {
            router: Router::new(),
            served: Vec::new(),
        }
    }

    /// Adds a path.
    pub(crate) fn route(mut self, path: &'static str, endpoint: Endpoint<S>) -> Self {
        let methods = endpoint.methods.into_iter();
        self.served.extend(methods.map(|method| (method, path)));
        self.router = self.router.route(path, endpoint.router);
        self
    }

    /// As axum has them.
    pub(crate) fn into_router(self) -> Router<S> {
        self.router
    }

    /// What is served, in the order in which it was added.
    #[cfg(test)]
    pub(crate) fn served(&self) -> &[Served] {
        &self.served
    }
}

macro_rules! begins_with {
    ($($verb:ident $method:ident),+) => {$(
        /// What answers this method of a path.
        pub(crate) fn $verb<H, T, S>(handler: H) -> Endpoint<S>
        where
            H: Handler<T, S>,
            T: 'static,
            S: Clone + Send + Sync + 'static,
        {
            Endpoint {
                methods: vec![Method::$method],
                router: axum::routing::$verb(handler),
            }
        }
    )+};
}

macro_rules! goes_on_with {
    ($($verb:ident $method:ident),+) => {$(
        /// This method too.
        pub(crate) fn $verb<H, T>(mut self, handler: H) -> Self
        where
            H: Handler<T, S>,
            T: 'static,
        {
            self.methods.push(Method::$method);
            self.router = self.router.$verb(handler);
            self
        }
    )+};
}

begins_with!(get GET, post POST);

impl<S: Clone + Send + Sync + 'static> Endpoint<S> {
    goes_on_with!(get GET, post POST, put PUT, patch PATCH, delete DELETE);

    /// With layers around the methods that it has so far.
    pub(crate) fn map(mut self, wrap: impl FnOnce(MethodRouter<S>) -> MethodRouter<S>) -> Self {
        self.router = wrap(self.router);
        self
    }
}
