const kinds = { gaussian };
