//! A generic view of PostgreSQL's parse tree.
//!
//! `pg_query` hands out some 270 struct types. The walker wants to see *all*
//! of them, also those it has no words for, so that nothing is passed over.
//! This serde serializer turns any of them into one small tree; fields at
//! their default value are left out.

use serde::Serialize;
use serde::ser::{self, Impossible};

/// One value of the parse tree.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Tree {
    /// A default, absent or empty value.
    Nothing,
    /// A number or a bool.
    Int(i64),
    /// A string.
    Text(String),
    /// A list; empty places are kept as `Nothing`.
    List(Vec<Tree>),
    /// A struct by its name and its fields that are not at their default.
    Node(&'static str, Vec<(&'static str, Tree)>),
}

static NOTHING: Tree = Tree::Nothing;

impl Tree {
    /// Any serializable part of a parse tree.
    pub(crate) fn of<T: Serialize>(value: &T) -> Result<Tree, TreeError> {
        value.serialize(Builder)
    }

    /// The struct's name, or "".
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Tree::Node(name, _) => name,
            _ => "",
        }
    }

    /// A field; `Nothing` when it is at its default.
    pub(crate) fn get(&self, field: &str) -> &Tree {
        match self {
            Tree::Node(_, fields) => fields
                .iter()
                .find(|(n, _)| *n == field)
                .map_or(&NOTHING, |(_, v)| v),
            _ => &NOTHING,
        }
    }

    /// A string field; "" when absent. A `String` node counts as its text.
    pub(crate) fn text(&self, field: &str) -> &str {
        self.get(field).as_text()
    }

    /// This value as text: a string, or a `String` node.
    pub(crate) fn as_text(&self) -> &str {
        match self {
            Tree::Text(s) => s,
            Tree::Node("String", _) => match self.get("sval") {
                Tree::Text(s) => s,
                _ => "",
            },
            _ => "",
        }
    }

    /// A number or bool field; 0 when absent.
    pub(crate) fn int(&self, field: &str) -> i64 {
        match self.get(field) {
            Tree::Int(n) => *n,
            _ => 0,
        }
    }

    /// Whether a bool field is set.
    pub(crate) fn flag(&self, field: &str) -> bool {
        self.int(field) != 0
    }

    /// A list field's items, or this `List` node's items.
    pub(crate) fn list(&self, field: &str) -> &[Tree] {
        self.get(field).items()
    }

    /// This value's items, when it is a list or a `List` node.
    pub(crate) fn items(&self) -> &[Tree] {
        match self {
            Tree::List(items) => items,
            Tree::Node("List", _) => match self.get("items") {
                Tree::List(items) => items,
                _ => &[],
            },
            _ => &[],
        }
    }

    /// Whether anything is there.
    pub(crate) fn is_some(&self) -> bool {
        !matches!(self, Tree::Nothing)
    }

    /// Every direct child value.
    pub(crate) fn children(&self) -> Box<dyn Iterator<Item = &Tree> + '_> {
        match self {
            Tree::List(items) => Box::new(items.iter()),
            Tree::Node(_, fields) => Box::new(fields.iter().map(|(_, v)| v)),
            _ => Box::new(std::iter::empty()),
        }
    }
}

/// The tree cannot be built: a shape that `pg_query` does not make.
#[derive(Debug)]
pub(crate) struct TreeError;

impl std::fmt::Display for TreeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("unexpected shape of the parse tree")
    }
}

impl std::error::Error for TreeError {}

impl ser::Error for TreeError {
    fn custom<T: std::fmt::Display>(_: T) -> Self {
        TreeError
    }
}

struct Builder;

macro_rules! numbers {
    ($($name:ident: $ty:ty),*) => {$(
        fn $name(self, v: $ty) -> Result<Tree, TreeError> {
            let n = v as i64;
            Ok(if n == 0 { Tree::Nothing } else { Tree::Int(n) })
        }
    )*};
}

impl ser::Serializer for Builder {
    type Ok = Tree;
    type Error = TreeError;
    type SerializeSeq = Items;
    type SerializeTuple = Impossible<Tree, TreeError>;
    type SerializeTupleStruct = Impossible<Tree, TreeError>;
    type SerializeTupleVariant = Impossible<Tree, TreeError>;
    type SerializeMap = Impossible<Tree, TreeError>;
    type SerializeStruct = Fields;
    type SerializeStructVariant = Impossible<Tree, TreeError>;

    numbers!(serialize_bool: bool, serialize_i8: i8, serialize_i16: i16, serialize_i32: i32,
        serialize_i64: i64, serialize_u8: u8, serialize_u16: u16, serialize_u32: u32, serialize_u64: u64);

    fn serialize_f32(self, _: f32) -> Result<Tree, TreeError> {
        Err(TreeError)
    }
    fn serialize_f64(self, _: f64) -> Result<Tree, TreeError> {
        Err(TreeError)
    }
    fn serialize_char(self, _: char) -> Result<Tree, TreeError> {
        Err(TreeError)
    }
    fn serialize_str(self, v: &str) -> Result<Tree, TreeError> {
        Ok(if v.is_empty() {
            Tree::Nothing
        } else {
            Tree::Text(v.to_owned())
        })
    }
    fn serialize_bytes(self, _: &[u8]) -> Result<Tree, TreeError> {
        Err(TreeError)
    }
    fn serialize_none(self) -> Result<Tree, TreeError> {
        Ok(Tree::Nothing)
    }
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<Tree, TreeError> {
        value.serialize(Builder)
    }
    fn serialize_unit(self) -> Result<Tree, TreeError> {
        Ok(Tree::Nothing)
    }
    fn serialize_unit_struct(self, name: &'static str) -> Result<Tree, TreeError> {
        Ok(Tree::Node(name, Vec::new()))
    }
    fn serialize_unit_variant(
        self,
        _: &'static str,
        index: u32,
        _: &'static str,
    ) -> Result<Tree, TreeError> {
        self.serialize_u32(index)
    }
    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<Tree, TreeError> {
        value.serialize(Builder)
    }
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        value: &T,
    ) -> Result<Tree, TreeError> {
        value.serialize(Builder)
    }
    fn serialize_seq(self, len: Option<usize>) -> Result<Items, TreeError> {
        Ok(Items(Vec::with_capacity(len.unwrap_or(0).min(1024))))
    }
    fn serialize_tuple(self, _: usize) -> Result<Self::SerializeTuple, TreeError> {
        Err(TreeError)
    }
    fn serialize_tuple_struct(
        self,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleStruct, TreeError> {
        Err(TreeError)
    }
    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeTupleVariant, TreeError> {
        Err(TreeError)
    }
    fn serialize_map(self, _: Option<usize>) -> Result<Self::SerializeMap, TreeError> {
        Err(TreeError)
    }
    fn serialize_struct(self, name: &'static str, _: usize) -> Result<Fields, TreeError> {
        Ok(Fields {
            name,
            fields: Vec::new(),
        })
    }
    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStructVariant, TreeError> {
        Err(TreeError)
    }
}

struct Items(Vec<Tree>);

impl ser::SerializeSeq for Items {
    type Ok = Tree;
    type Error = TreeError;
    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), TreeError> {
        self.0.push(value.serialize(Builder)?);
        Ok(())
    }
    fn end(self) -> Result<Tree, TreeError> {
        Ok(if self.0.is_empty() {
            Tree::Nothing
        } else {
            Tree::List(self.0)
        })
    }
}

struct Fields {
    name: &'static str,
    fields: Vec<(&'static str, Tree)>,
}

impl ser::SerializeStruct for Fields {
    type Ok = Tree;
    type Error = TreeError;
    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        key: &'static str,
        value: &T,
    ) -> Result<(), TreeError> {
        if matches!(key, "location" | "arg_location" | "name_location" | "xpr") {
            // Where a token stood says nothing about what it does, and equal
            // expressions in two places are to compare equal.
            return Ok(());
        }
        let value = value.serialize(Builder)?;
        if value.is_some() {
            self.fields.push((key, value));
        }
        Ok(())
    }
    fn end(mut self) -> Result<Tree, TreeError> {
        if self.name == "Node" {
            // The wrapper around the oneof says nothing of its own.
            return Ok(self.fields.pop().map_or(Tree::Nothing, |(_, v)| v));
        }
        Ok(Tree::Node(self.name, self.fields))
    }
}
