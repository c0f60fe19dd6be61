/* What a backup through SQLite costs at least: VACUUM INTO, and integrity_check on the result.
 *
 *   limit DATABASE SNAPSHOT    without words it prints the version of SQLite
 *
 * The same settings that a fast backup may use: no syncs for a file that is temporary, and 16 MB
 * of pages for the check, beyond which it gets no faster. */
#include <sqlite3.h>
#include <stdio.h>
#include <string.h>

static int fail(sqlite3 *db, const char *what) {
    fprintf(stderr, "%s: %s\n", what, sqlite3_errmsg(db));
    return 1;
}

static int make_snapshot(const char *database, const char *snapshot) {
    sqlite3 *db;
    sqlite3_stmt *vacuum;
    if (sqlite3_open_v2(database, &db, SQLITE_OPEN_READONLY, NULL)) return fail(db, database);
    if (sqlite3_exec(db, "PRAGMA synchronous = OFF", NULL, NULL, NULL)) return fail(db, "pragma");
    if (sqlite3_prepare_v2(db, "VACUUM INTO ?1", -1, &vacuum, NULL)) return fail(db, "prepare");
    sqlite3_bind_text(vacuum, 1, snapshot, -1, SQLITE_STATIC);
    if (sqlite3_step(vacuum) != SQLITE_DONE) return fail(db, "VACUUM INTO");
    sqlite3_finalize(vacuum);
    return sqlite3_close(db);
}

static int check(const char *snapshot) {
    sqlite3 *db;
    sqlite3_stmt *statement;
    if (sqlite3_open_v2(snapshot, &db, SQLITE_OPEN_READONLY, NULL)) return fail(db, snapshot);
    if (sqlite3_exec(db, "PRAGMA cache_size = -16000", NULL, NULL, NULL)) return fail(db, "pragma");
    if (sqlite3_prepare_v2(db, "PRAGMA integrity_check", -1, &statement, NULL))
        return fail(db, "prepare");
    if (sqlite3_step(statement) != SQLITE_ROW) return fail(db, "integrity_check");
    const char *finding = (const char *)sqlite3_column_text(statement, 0);
    if (strcmp(finding, "ok") != 0) {
        fprintf(stderr, "integrity_check: %s\n", finding);
        return 1;
    }
    sqlite3_finalize(statement);
    return sqlite3_close(db);
}

int main(int count, char **words) {
    if (count != 3) {
        printf("%s\n", sqlite3_libversion());
        return 0;
    }
    int failed = make_snapshot(words[1], words[2]);
    return failed ? failed : check(words[2]);
}
