//! Reading a kernel and loading it by its format.

use std::borrow::Cow;
use std::fs;
use std::io::Read;
use std::path::PathBuf;

use baton_config::KernelSource;
use vm_memory::GuestMemoryMmap;

use super::error::LoadError;
use super::loaded::Loaded;
use super::{bzimage, elf};

/// Largest kernel file that is read, bytes.
const MAX_KERNEL_FILE: u64 = 1 << 30;

/// Loads `kernel` at the address in its headers. `builtin` is the image of the built-in one.
///
/// # Errors
/// If the kernel cannot be read, is not one for this machine, or does not fit into memory.
pub fn load(
    kernel: &KernelSource,
    builtin: &[u8],
    memory: &GuestMemoryMmap,
) -> Result<Loaded, LoadError> {
    let (what, image) = match kernel {
        KernelSource::Builtin => ("built in".to_owned(), Cow::Borrowed(builtin)),
        KernelSource::Path(path) => (path.display().to_string(), Cow::Owned(read(path.clone())?)),
    };
    load_image(&what, &image, memory)
}

/// Loads the kernel `image`, which is called `what`, at the address in its headers.
///
/// # Errors
/// If it is not one for this machine, or does not fit into memory.
pub(crate) fn load_image(
    what: &str,
    image: &[u8],
    memory: &GuestMemoryMmap,
) -> Result<Loaded, LoadError> {
    match bzimage::is_bzimage(image) {
        true => bzimage::load(what, image, memory),
        false => elf::load(what, image, memory),
    }
}

/// Reads the file of a kernel.
///
/// # Errors
/// If it cannot be read, or is larger than any kernel.
pub(crate) fn read(path: PathBuf) -> Result<Vec<u8>, LoadError> {
    let mut image = Vec::new();
    let result = fs::File::open(&path)
        .and_then(|file| file.take(MAX_KERNEL_FILE + 1).read_to_end(&mut image));
    match result {
        Ok(_) if image.len() as u64 > MAX_KERNEL_FILE => Err(LoadError::TooLarge(path)),
        Ok(_) => Ok(image),
        Err(source) => Err(LoadError::Read { path, source }),
    }
}
