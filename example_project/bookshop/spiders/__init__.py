"""The two spiders: one meets a captcha gate, the other sends a form that holds a captcha."""
