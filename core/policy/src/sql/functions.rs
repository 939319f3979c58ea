//! Functions that a static look cannot see through.

/// Functions, by their last name, that run SQL given as text or by name, read
/// or write the server's files, reach other servers, read pages or the WAL
/// below the tables, or schedule work for later. Sorted.
const DYNAMIC: &[&str] = &[
    "add_job",
    "binary_upgrade_create_empty_extension",
    "bt_page_items",
    "connectby",
    "copy_from_query",
    "crosstab",
    "crosstab2",
    "crosstab3",
    "crosstab4",
    "crosstab_hash",
    "cursor_to_xml",
    "cursor_to_xmlschema",
    "cypher",
    "database_to_xml",
    "database_to_xml_and_xmlschema",
    "database_to_xmlschema",
    "dblink",
    "dblink_build_sql_delete",
    "dblink_build_sql_insert",
    "dblink_build_sql_update",
    "dblink_connect",
    "dblink_connect_u",
    "dblink_exec",
    "dblink_fetch",
    "dblink_get_result",
    "dblink_open",
    "dblink_send_query",
    "exec",
    "exec_sql",
    "execute",
    "execute_sql",
    "fuzzystrmatch_exec",
    "get_raw_page",
    "gin_leafpage_items",
    "heap_page_item_attrs",
    "heap_page_items",
    "http",
    "http_delete",
    "http_get",
    "http_head",
    "http_patch",
    "http_post",
    "http_put",
    "invoke",
    "lambda_invoke",
    "launch",
    "lo_create",
    "lo_export",
    "lo_from_bytea",
    "lo_get",
    "lo_import",
    "lo_open",
    "lo_put",
    "lo_unlink",
    "loread",
    "lowrite",
    "pg_background_launch",
    "pg_backup_start",
    "pg_backup_stop",
    "pg_copy_logical_replication_slot",
    "pg_copy_physical_replication_slot",
    "pg_create_logical_replication_slot",
    "pg_create_physical_replication_slot",
    "pg_current_logfile",
    "pg_drop_replication_slot",
    "pg_exec",
    "pg_execute",
    "pg_file_read",
    "pg_file_rename",
    "pg_file_sync",
    "pg_file_unlink",
    "pg_file_write",
    "pg_get_wal_block_info",
    "pg_get_wal_record_info",
    "pg_get_wal_records_info",
    "pg_hba_file_rules",
    "pg_logdir_ls",
    "pg_logical_emit_message",
    "pg_logical_slot_get_binary_changes",
    "pg_logical_slot_get_changes",
    "pg_logical_slot_peek_binary_changes",
    "pg_logical_slot_peek_changes",
    "pg_ls_archive_statusdir",
    "pg_ls_dir",
    "pg_ls_logdir",
    "pg_ls_logicalmapdir",
    "pg_ls_logicalsnapdir",
    "pg_ls_replslotdir",
    "pg_ls_summariesdir",
    "pg_ls_tmpdir",
    "pg_ls_waldir",
    "pg_promote",
    "pg_read_binary_file",
    "pg_read_file",
    "pg_read_file_old",
    "pg_read_server_files",
    "pg_reload_conf",
    "pg_replication_slot_advance",
    "pg_rotate_logfile",
    "pg_show_all_file_settings",
    "pg_stat_file",
    "plv8",
    "query_export_to_s3",
    "query_to_xml",
    "query_to_xml_and_xmlschema",
    "query_to_xmlschema",
    "run_command_on_all_nodes",
    "run_command_on_colocated_placements",
    "run_command_on_coordinator",
    "run_command_on_placements",
    "run_command_on_shards",
    "run_command_on_workers",
    "schedule",
    "schedule_in_database",
    "schema_to_xml",
    "schema_to_xml_and_xmlschema",
    "schema_to_xmlschema",
    "sql_exec",
    "system",
    "table_import_from_s3",
    "table_to_xml",
    "table_to_xml_and_xmlschema",
    "table_to_xmlschema",
    "ts_rewrite",
    "ts_stat",
    "tuple_data_split",
    "utl_file",
    "xpath_table",
];

/// Functions that turn a whole row into one value: `u.to_json` means
/// `to_json(u)` where `u` has no such column. Sorted.
const ROW_EATERS: &[&str] = &[
    "array_agg",
    "concat",
    "format",
    "hash_record",
    "hash_record_extended",
    "hstore",
    "json_agg",
    "json_build_array",
    "json_build_object",
    "jsonb_agg",
    "jsonb_build_array",
    "jsonb_build_object",
    "max",
    "min",
    "num_nonnulls",
    "num_nulls",
    "pg_column_size",
    "quote_literal",
    "quote_nullable",
    "record_out",
    "record_send",
    "row_to_json",
    "to_json",
    "to_jsonb",
];

/// Whether a function, by its last name, is on the list of [`DYNAMIC`] ones.
pub(crate) fn is_dynamic(name: &str) -> bool {
    DYNAMIC.binary_search(&name).is_ok() || name.starts_with("dblink") || name.starts_with("pg_ls_")
}

/// Whether a column-like reference may be a call on the whole row.
pub(super) fn eats_rows(name: &str) -> bool {
    ROW_EATERS.binary_search(&name).is_ok()
}

/// Fields of the rows that catalogue functions return, which clients read as
/// `alias.field` or `(value).field`; without the list each would count as a
/// call of a function of that name.
pub(super) fn fields_of(function: &str) -> &'static [&'static str] {
    match function {
        "_pg_expandarray" => &["x", "n"],
        "aclexplode" => &["grantor", "grantee", "privilege_type", "is_grantable"],
        "json_each" | "json_each_text" | "jsonb_each" | "jsonb_each_text" => &["key", "value"],
        "pg_get_keywords" => &["word", "catcode", "barelabel", "catdesc", "baredesc"],
        "pg_options_to_table" => &["option_name", "option_value"],
        "pg_partition_tree" => &["relid", "parentrelid", "isleaf", "level"],
        "pg_get_publication_tables" => &["pubid", "relid", "attrs", "qual"],
        "pg_sequence_parameters" => &[
            "start_value",
            "minimum_value",
            "maximum_value",
            "increment",
            "cycle_option",
            "cache_size",
            "data_type",
        ],
        _ => &[],
    }
}

#[cfg(test)]
mod tests {
    use super::{DYNAMIC, ROW_EATERS};

    #[test]
    fn lists_are_sorted_for_the_binary_search() {
        assert!(DYNAMIC.is_sorted());
        assert!(ROW_EATERS.is_sorted());
    }
}
