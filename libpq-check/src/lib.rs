//! libpq's own parser of connection strings, loaded at run time, to compare diesel-neon's with. Nothing links to libpq,
//! so the workspace builds without it.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CStr, CString, c_char, c_int};
use std::path::PathBuf;
use std::process::Command;

use libloading::Library;

/// The loaded library, and its functions that parse.
#[derive(Debug)]
pub struct Libpq {
    parse: Parse,
    free: Free,
    free_text: FreeText,
    version: c_int,
    // Dropped last, since it holds the functions above.
    _library: Library,
}

/// The parameters that a connection string sets, by keyword, as bytes: libpq knows no character set.
pub type Parameters = BTreeMap<String, Vec<u8>>;

/// A keyword and its value.
type Keyword = (String, Option<Vec<u8>>);

impl Libpq {
    /// Loads libpq, by its usual name or from where `pg_config` says.
    ///
    /// # Errors
    ///
    /// The loader's error for every place that was tried.
    pub fn load() -> Result<Self, String> {
        let mut tried = Vec::new();
        for path in places() {
            // SAFETY: libpq's initialisers touch nothing of ours.
            match unsafe { Library::new(&path) } {
                Ok(library) => return Self::with(library).map_err(|error| error.to_string()),
                Err(error) => tried.push(format!("{}: {error}", path.display())),
            }
        }
        Err(tried.join("; "))
    }

    fn with(library: Library) -> Result<Self, libloading::Error> {
        // SAFETY: the signatures are those of libpq-fe.h, the same since PostgreSQL 9.
        unsafe {
            let version = library.get::<unsafe extern "C" fn() -> c_int>(b"PQlibVersion\0")?;
            Ok(Self {
                parse: *library.get(b"PQconninfoParse\0")?,
                free: *library.get(b"PQconninfoFree\0")?,
                free_text: *library.get(b"PQfreemem\0")?,
                version: version(),
                _library: library,
            })
        }
    }

    /// Returns libpq's version, 150004 for 15.4.
    pub fn version(&self) -> i32 {
        self.version
    }

    /// Parses a connection string by `PQconninfoParse`, which reads no environment and dials nothing.
    ///
    /// # Errors
    ///
    /// libpq's own error, which may quote the password.
    pub fn parse(&self, text: &str) -> Result<Parameters, String> {
        let options = self.options(text)?;
        let set = |(keyword, value): Keyword| Some((keyword, value?));
        Ok(options.into_iter().filter_map(set).collect())
    }

    /// Returns every keyword that this libpq knows.
    pub fn keywords(&self) -> BTreeSet<String> {
        let options = self.options("").unwrap_or_default();
        options.into_iter().map(|(keyword, _)| keyword).collect()
    }

    fn options(&self, text: &str) -> Result<Vec<Keyword>, String> {
        let text = CString::new(text).map_err(|error| error.to_string())?;
        let mut message: *mut c_char = std::ptr::null_mut();
        // SAFETY: `text` ends in a zero byte and outlives the call, and `message` may be written to.
        let list = unsafe { (self.parse)(text.as_ptr(), &raw mut message) };
        if list.is_null() {
            if message.is_null() {
                return Err("out of memory".to_owned());
            }
            // SAFETY: libpq has written a string that ends in a zero byte, and leaves it to its caller.
            let text = unsafe { CStr::from_ptr(message) }
                .to_string_lossy()
                .into_owned();
            // SAFETY: as above; it is not used again.
            unsafe { (self.free_text)(message.cast()) };
            return Err(text);
        }

        let mut options = Vec::new();
        let mut next = list.cast_const();
        // SAFETY: the list ends with an entry without a keyword; the texts are copied before it is freed.
        unsafe {
            while let Some(keyword) = (*next).keyword.as_ref() {
                let keyword = CStr::from_ptr(keyword).to_string_lossy().into_owned();
                let value = (*next).value.as_ref();
                let value = value.map(|value| CStr::from_ptr(value).to_bytes().to_vec());
                options.push((keyword, value));
                next = next.add(1);
            }
            (self.free)(list);
        }
        Ok(options)
    }
}

type Parse = unsafe extern "C" fn(*const c_char, *mut *mut c_char) -> *mut Entry;
type Free = unsafe extern "C" fn(*mut Entry);
type FreeText = unsafe extern "C" fn(*mut std::ffi::c_void);

/// `PQconninfoOption`.
#[repr(C)]
struct Entry {
    keyword: *const c_char,
    environment: *const c_char,
    compiled: *const c_char,
    value: *const c_char,
    label: *const c_char,
    display: *const c_char,
    size: c_int,
}

fn places() -> Vec<PathBuf> {
    let name = match std::env::consts::OS {
        "macos" => "libpq.5.dylib",
        "windows" => "libpq.dll",
        _ => "libpq.so.5",
    };
    let mut places = vec![PathBuf::from(name)];
    for folder in ["/opt/homebrew/opt/libpq/lib", "/usr/local/opt/libpq/lib"] {
        places.push(PathBuf::from(folder).join(name));
    }
    if let Ok(output) = Command::new("pg_config").arg("--libdir").output() {
        let folder = String::from_utf8_lossy(&output.stdout);
        places.push(PathBuf::from(folder.trim()).join(name));
    }
    places
}
