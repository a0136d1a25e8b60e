"""E-mail."""

from __future__ import annotations

from flowyml import step

__all__ = ["email"]

_SECURITY = ("starttls", "tls", "none")
_SECONDS = 60


@step
def email(
    to: str | list[str],
    subject: str,
    text: str,
    sender: str,
    host: str,
    port: int | None = None,
    username: str = "",
    password: str = "",
    html: str = "",
    security: str = "starttls",
) -> None:
    """Send an e-mail through an SMTP server.

    ``security`` is how the connection is encrypted: ``"starttls"`` (port 587 by default), ``"tls"`` (465), or
    ``"none"`` (25), which refuses to send a password. The password is a secret:
    ``email.options(secrets={"password": "smtp/password"})``. ``html`` is the same message as HTML, for mail readers
    that show it. Raises ``ValueError`` for a header with a line break, and what ``smtplib`` raises.
    """
    import smtplib
    import ssl
    from email.message import EmailMessage

    if security not in _SECURITY:
        raise ValueError(f"security={security!r} must be one of {', '.join(_SECURITY)}.")
    if password and security == "none":
        raise ValueError("email sends no password over an unencrypted connection. Use security='starttls' or 'tls'.")
    message = EmailMessage()
    message["To"] = to if isinstance(to, str) else ", ".join(to)
    message["From"], message["Subject"] = sender, subject
    message.set_content(text)
    if html:
        message.add_alternative(html, subtype="html")
    context = ssl.create_default_context()
    if security == "tls":
        server: smtplib.SMTP = smtplib.SMTP_SSL(host, port or 465, timeout=_SECONDS, context=context)
    else:
        server = smtplib.SMTP(host, port or (587 if security == "starttls" else 25), timeout=_SECONDS)
    with server:
        if security == "starttls":
            server.starttls(context=context)
        if username:
            server.login(username, password)
        server.send_message(message)
    print(f"Sent {subject!r} to {message['To']}.")
