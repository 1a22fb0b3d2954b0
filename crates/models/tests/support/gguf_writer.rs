//! Writes GGUF files for tests and examples: sound ones, and ones that lie where told to.

#![allow(dead_code, reason = "each test and example uses its own part")]

/// A GGUF file under construction.
#[derive(Clone)]
pub(crate) struct GgufWriter {
    /// Data begin, and tensors lie, at multiples of this.
    pub(crate) alignment: usize,
    keys: Vec<Vec<u8>>,
    tensors: Vec<Tensor>,
}

/// What the header says of a tensor, and its bytes unless they are written by someone else.
#[derive(Clone)]
pub(crate) struct Tensor {
    pub(crate) name: String,
    /// Outermost first.
    pub(crate) sizes: Vec<u64>,
    /// The format's number for the element type.
    pub(crate) code: u32,
    /// Bytes that the next tensor's offset leaves for this one.
    pub(crate) bytes: usize,
    /// Replaces the offset that the order of tensors gives.
    pub(crate) offset: Option<u64>,
    pub(crate) data: Vec<u8>,
}

impl Default for GgufWriter {
    fn default() -> Self {
        Self { alignment: 32, keys: Vec::new(), tensors: Vec::new() }
    }
}

impl GgufWriter {
    /// Adds a key with a value in the file's own bytes, of any type.
    pub(crate) fn key(&mut self, key: &str, code: u32, value: &[u8]) -> &mut Self {
        self.keys.push([&string(key), &code.to_le_bytes()[..], value].concat());
        self
    }

    /// Takes a key out again.
    pub(crate) fn without_key(&mut self, key: &str) -> &mut Self {
        self.keys.retain(|bytes| !bytes.starts_with(&string(key)));
        self
    }

    pub(crate) fn u32(&mut self, key: &str, value: u32) -> &mut Self {
        self.key(key, 4, &value.to_le_bytes())
    }

    pub(crate) fn f32(&mut self, key: &str, value: f32) -> &mut Self {
        self.key(key, 6, &value.to_le_bytes())
    }

    pub(crate) fn bool(&mut self, key: &str, value: bool) -> &mut Self {
        self.key(key, 7, &[value.into()])
    }

    pub(crate) fn text(&mut self, key: &str, value: &str) -> &mut Self {
        self.key(key, 8, &string(value))
    }

    pub(crate) fn texts(&mut self, key: &str, values: &[&str]) -> &mut Self {
        let mut bytes = array(8, values.len() as u64);
        values.iter().for_each(|value| bytes.extend(string(value)));
        self.key(key, 9, &bytes)
    }

    pub(crate) fn i32s(&mut self, key: &str, values: &[i32]) -> &mut Self {
        let mut bytes = array(5, values.len() as u64);
        values.iter().for_each(|value| bytes.extend(value.to_le_bytes()));
        self.key(key, 9, &bytes)
    }

    /// Adds a tensor; `sizes` are outermost first.
    pub(crate) fn tensor(
        &mut self,
        name: &str,
        sizes: &[u64],
        code: u32,
        data: Vec<u8>,
    ) -> &mut Self {
        self.declare(name, sizes, code, data.len());
        if let Some(tensor) = self.tensors.last_mut() {
            tensor.data = data;
        }
        self
    }

    /// Adds a tensor whose bytes someone else will write behind the header.
    pub(crate) fn declare(
        &mut self,
        name: &str,
        sizes: &[u64],
        code: u32,
        bytes: usize,
    ) -> &mut Self {
        let (name, sizes) = (name.to_owned(), sizes.to_vec());
        self.tensors.push(Tensor { name, sizes, code, bytes, offset: None, data: Vec::new() });
        self
    }

    /// The tensor of that name, to be changed.
    pub(crate) fn change(&mut self, name: &str) -> &mut Tensor {
        let found = self.tensors.iter_mut().find(|tensor| tensor.name == name);
        found.expect("the file has a tensor of that name")
    }

    /// Takes a tensor out again.
    pub(crate) fn without_tensor(&mut self, name: &str) -> &mut Self {
        self.tensors.retain(|tensor| tensor.name != name);
        self
    }

    pub(crate) fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }

    /// Everything before the data, padded.
    pub(crate) fn header(&self) -> Vec<u8> {
        let mut bytes = [&b"GGUF"[..], &3u32.to_le_bytes()].concat();
        bytes.extend((self.tensors.len() as u64).to_le_bytes());
        bytes.extend((self.keys.len() as u64).to_le_bytes());
        bytes.extend(self.keys.concat());
        let mut offset = 0;
        for tensor in &self.tensors {
            bytes.extend(string(&tensor.name));
            bytes.extend((tensor.sizes.len() as u32).to_le_bytes());
            tensor.sizes.iter().rev().for_each(|size| bytes.extend(size.to_le_bytes()));
            bytes.extend(tensor.code.to_le_bytes());
            bytes.extend(tensor.offset.unwrap_or(offset).to_le_bytes());
            offset += tensor.bytes.next_multiple_of(self.alignment) as u64;
        }
        bytes.resize(bytes.len().next_multiple_of(self.alignment), 0);
        bytes
    }

    /// The whole file; the last tensor is not padded.
    pub(crate) fn file(&self) -> Vec<u8> {
        let mut bytes = self.header();
        for tensor in &self.tensors {
            bytes.resize(bytes.len().next_multiple_of(self.alignment), 0);
            bytes.extend(&tensor.data);
        }
        bytes
    }
}

/// A string as the file holds it.
pub(crate) fn string(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes()[..], text.as_bytes()].concat()
}

/// The beginning of an array: element type and length.
pub(crate) fn array(code: u32, length: u64) -> Vec<u8> {
    [&code.to_le_bytes()[..], &length.to_le_bytes()].concat()
}
