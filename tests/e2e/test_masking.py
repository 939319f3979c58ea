"""Secrets do not come back, in whatever message they travel; nor do they stay behind."""

import base64
import unittest

from cases import AWS_KEY, OWNER_PASSWORD, GatewayCase, server

SECRETS = (AWS_KEY, OWNER_PASSWORD)


class Masking(GatewayCase):
    def assert_masked(self, script: str, secret: str, **more) -> str:
        done = self.psql(script, **more)
        text = done.stdout + done.stderr
        self.assertIn("[masked:", text, script)
        self.assertNotIn(secret, text, script)
        return text

    def test_rows(self):
        text = self.assert_masked("SELECT name, note FROM customers ORDER BY id;\n", AWS_KEY)
        self.assertNotIn(OWNER_PASSWORD, text)
        self.assertIn("Ada|tea", text)

    def test_copy_to_stdout(self):
        for form in ("TEXT", "CSV"):
            self.assert_masked(f"COPY customers TO STDOUT (FORMAT {form});\n", AWS_KEY)

    def test_an_error_that_prints_a_value(self):
        self.assert_masked("SELECT note::int FROM customers WHERE id = 2;\n", AWS_KEY)

    def test_a_notice(self):
        self.assert_masked("DO $$ BEGIN RAISE NOTICE 'found %', (SELECT note FROM customers WHERE id = 2); END $$;\n", AWS_KEY)

    def test_a_notification(self):
        self.assert_masked("LISTEN c;\nSELECT pg_notify('c', note) FROM customers WHERE id = 2;\nSELECT 1;\n", AWS_KEY)

    def test_a_column_name(self):
        self.assert_masked(f'\\pset tuples_only off\nSELECT 1 AS "{OWNER_PASSWORD}" FROM customers;\n', OWNER_PASSWORD)

    def test_derived_forms_of_the_injected_password(self):
        # Column aliases keep the secret itself out of the statement.
        secret = OWNER_PASSWORD
        for expression, form in (
            ("encode(convert_to(note, 'UTF8'), 'base64')", base64.b64encode(secret.encode()).decode()),
            ("encode(convert_to(note, 'UTF8'), 'hex')", secret.encode().hex()),
            ("convert_to(note, 'UTF8')", secret.encode().hex()),
            ("to_json(note)", secret),
            ("'x' || note || 'y'", secret),
        ):
            with self.subTest(expression):
                self.assert_masked(f"SELECT {expression} FROM customers WHERE id = 3;\n", form)

    def test_an_updated_row_cannot_take_a_mask_back(self):
        done = self.psql("UPDATE customers SET note = '[masked:aws-access-key-id]' WHERE id = 2;\n")
        self.assertIn("42501", done.stderr)
        self.assertIn(AWS_KEY, server().sql("SELECT note FROM customers WHERE id = 2", "shop"))

    def test_no_secret_in_log_record_or_metrics(self):
        self.psql("SELECT * FROM customers;\nSELECT note::int FROM customers;\nSELECT 1 FROM nothing;\n")
        self.psql(f"SELECT '{AWS_KEY}';\n")
        self.psql("SELECT 1;", token="wrong-token-" + "x" * 30)
        content = b"".join(path.read_bytes() for path in self.gateway.folder.rglob("*") if path.is_file() and path.name != "portcullis.toml")
        content += self.gateway.http("/metrics")[1].encode()
        self.assertGreater(len(content), 2000)
        for secret in (*SECRETS, self.token):
            for form in (secret.encode(), secret.encode().hex().encode(), base64.b64encode(secret.encode())):
                self.assertEqual(content.count(form), 0, form[:8])


if __name__ == "__main__":
    unittest.main()
