//! What a template is made of.

use std::any::TypeId;
use std::error::Error;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::pin::Pin;
use std::sync::Arc;

use super::database::TestDatabase;
use super::migrations::Migration;

/// One step on the way to a template. Equal steps make equal templates.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Part {
    Migration(Migration),
    Sql(String),
    Preparation(Preparation),
}

type BoxError = Box<dyn Error + Send + Sync>;
type Outcome = Pin<Box<dyn Future<Output = Result<(), BoxError>> + Send>>;

/// A function of the user's; its type tells it from others.
#[derive(Clone)]
pub(super) struct Preparation {
    of: TypeId,
    run: Arc<dyn Fn(TestDatabase) -> Outcome + Send + Sync>,
}

impl Preparation {
    pub(super) fn new<F, R, E>(function: F) -> Self
    where
        F: Fn(TestDatabase) -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError>,
    {
        const {
            assert!(
                size_of::<F>() == 0,
                "`prepare` takes a function or a closure that captures nothing: its type tells the templates apart"
            );
        }
        let run = move |database| -> Outcome {
            let future = function(database);
            Box::pin(async move { future.await.map_err(Into::into) })
        };
        Self {
            of: TypeId::of::<F>(),
            run: Arc::new(run),
        }
    }

    pub(super) async fn run(&self, database: TestDatabase) -> Result<(), BoxError> {
        (self.run)(database).await
    }
}

impl PartialEq for Preparation {
    fn eq(&self, other: &Self) -> bool {
        self.of == other.of
    }
}

impl Eq for Preparation {}

impl Hash for Preparation {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.of.hash(state);
    }
}

impl fmt::Debug for Preparation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Preparation").finish_non_exhaustive()
    }
}
