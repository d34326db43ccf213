//! Many rows of the embedded database in one value.
//!
//! Its driver hands every row from the database's thread to the reader's by itself, each column in memory of its own,
//! and wakes the reader for it. For a page of events that costs more than to find and to parse them, so that SQLite is
//! asked to write the rows as one JSON array instead. PostgreSQL sends its rows together anyway.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, Visitor};

use super::{Query, Readers, Row, constant_text};
use crate::store::StoreError;

/// Most rows that should be asked for in one value: it may be as long as all of them together, and SQLite holds no
/// value of more than a gigabyte.
pub(in crate::store) const ROWS: usize = 250;

/// What stands in a column of a packed row.
#[derive(Debug)]
pub(in crate::store) enum Cell {
    Null,
    Int(i64),
    Text(String),
}

impl Query {
    /// All rows of a `SELECT` that gives these columns, none of them a blob. No more than [`ROWS`] where they may be
    /// long.
    pub(in crate::store) async fn packed(
        self,
        columns: &'static str,
        readers: &Readers,
    ) -> Result<Vec<Row>, StoreError> {
        if let Readers::Postgres(_) = readers {
            return self.all(readers).await;
        }
        let Self { sql, values } = self;
        let sql = constant_text((sql, 1), || {
            format!("SELECT json_group_array(json_array({columns})) FROM ({sql})")
        });
        let Some(row) = Self { sql, values }.optional(readers).await? else {
            return Ok(Vec::new());
        };
        let rows = row.get::<String>(0)?;
        let rows: Vec<Vec<Cell>> = serde_json::from_str(&rows).map_err(StoreError::encoding)?;
        Ok(rows.into_iter().map(Row::Packed).collect())
    }
}

/// A type that a column of a packed row can be read as.
pub(in crate::store) trait Unpack: Sized {
    /// What stands in a column, if it fits.
    fn unpack(cell: &Cell) -> Option<Self>;
}

/// The column at `index` of a packed row.
pub(in crate::store) fn unpack<T: Unpack>(row: &[Cell], index: usize) -> Result<T, sqlx::Error> {
    let value = row.get(index).and_then(T::unpack);
    value.ok_or_else(|| sqlx::Error::Decode(format!("column {index} has another type").into()))
}

impl Unpack for i64 {
    fn unpack(cell: &Cell) -> Option<Self> {
        match cell {
            Cell::Int(number) => Some(*number),
            _ => None,
        }
    }
}

impl Unpack for String {
    fn unpack(cell: &Cell) -> Option<Self> {
        match cell {
            Cell::Text(text) => Some(text.clone()),
            _ => None,
        }
    }
}

/// JSON has no blobs: such a column is never packed.
impl Unpack for Vec<u8> {
    fn unpack(_: &Cell) -> Option<Self> {
        None
    }
}

impl<T: Unpack> Unpack for Option<T> {
    fn unpack(cell: &Cell) -> Option<Self> {
        match cell {
            Cell::Null => Some(None),
            cell => T::unpack(cell).map(Some),
        }
    }
}

impl<'de> Deserialize<'de> for Cell {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(CellVisitor)
    }
}

struct CellVisitor;

impl Visitor<'_> for CellVisitor {
    type Value = Cell;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number, a text or null")
    }

    fn visit_unit<E: Error>(self) -> Result<Cell, E> {
        Ok(Cell::Null)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Cell, E> {
        Ok(Cell::Int(number))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Cell, E> {
        i64::try_from(number).map(Cell::Int).map_err(E::custom)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Cell, E> {
        Ok(Cell::Text(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use crate::store::engine::row_packing::{Cell, unpack};

    #[test]
    fn every_kind_of_column_is_read() {
        let row: Vec<Cell> = serde_json::from_str(r#"[-7,"a \"b\" \u0001 \ud83e\udd8a",null]"#).unwrap();
        assert_eq!(unpack::<i64>(&row, 0).unwrap(), -7);
        assert_eq!(unpack::<String>(&row, 1).unwrap(), "a \"b\" \u{1} 🦊");
        assert_eq!(unpack::<Option<String>>(&row, 2).unwrap(), None);
        assert_eq!(unpack::<Option<i64>>(&row, 0).unwrap(), Some(-7));
        assert!(unpack::<i64>(&row, 1).is_err() && unpack::<String>(&row, 2).is_err());
        assert!(unpack::<i64>(&row, 3).is_err(), "there is no such column");
    }
}
