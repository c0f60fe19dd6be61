//! Where the oracle taps the store: above the faults, what is asked; below them, what is done.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use super::witness::{MARK, Witness};

/// On which side of the faults a tap is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Asked,
    Done,
}

/// The wrapper.
#[derive(Debug)]
pub(super) struct Tap {
    pub(super) inner: Arc<dyn ObjectStore>,
    pub(super) witness: Witness,
    pub(super) side: Side,
}

impl Tap {
    fn asked(&self, text: impl FnOnce() -> String) {
        if self.side == Side::Asked {
            self.witness.note(&text());
        }
    }
}

impl fmt::Display for Tap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tap({})", self.inner)
    }
}

#[async_trait::async_trait]
impl ObjectStore for Tap {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        let name = location.filename().unwrap_or_default();
        self.asked(|| format!("put {name}"));
        let bytes = Bytes::from(payload.clone());
        let _upload = (self.side == Side::Asked && name != MARK).then(|| self.witness.upload());
        let put = self.inner.put_opts(location, payload, opts).await;
        self.asked(|| format!("put {name} ended, {}", put.is_ok()));
        if self.side == Side::Done && put.is_ok() {
            self.witness.books().put(name, &bytes);
        }
        put
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        panic!("{location} {opts:?}: a database of two pages is no multipart upload")
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.asked(|| format!("get {location} {:?}", options.range));
        self.inner.get_opts(location, options).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let (inner, witness, side) = (Arc::clone(&self.inner), self.witness.clone(), self.side);
        let deleted = locations.then(move |location| {
            let (inner, witness) = (Arc::clone(&inner), witness.clone());
            async move {
                let location = location?;
                let name = location.filename().unwrap_or_default();
                if side == Side::Asked {
                    witness.note(&format!("delete {name}"));
                }
                inner.delete(&location).await?;
                if side == Side::Done {
                    witness.books().delete(name);
                }
                Ok(location)
            }
        });
        deleted.boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.asked(|| "list".to_owned());
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, _options: CopyOptions) -> Result<()> {
        panic!("{from} to {to}: the service copies nothing")
    }
}
