"""asha.ocf.notify: what Pacemaker 2.1 and 3.0 put in the environment."""

from __future__ import annotations

from asha.ocf.notify import Notification

META = "OCF_RESKEY_CRM_meta_notify_"


def test_everything_is_read() -> None:
    news = Notification(
        {
            META + "type": "pre",
            META + "operation": "promote",
            META + "start_uname": "crm1 crm2",
            META + "stop_uname": " ",
            META + "promote_uname": "crm2",
            META + "demote_uname": "crm1",
            META + "promoted_uname": "crm1",
            META + "unpromoted_uname": "crm2",
        }
    )
    assert (news.type, news.operation) == ("pre", "promote")
    assert news.starting == ("crm1", "crm2")
    assert news.stopping == ()
    assert news.promoting == ("crm2",)
    assert news.demoting == ("crm1",)
    assert news.promoted == ("crm1",)
    assert news.unpromoted == ("crm2",)


def test_the_old_words_are_read_where_the_new_are_missing() -> None:
    news = Notification({META + "master_uname": "crm1", META + "slave_uname": "crm2"})
    assert news.promoted == ("crm1",)
    assert news.unpromoted == ("crm2",)


def test_the_new_words_win() -> None:
    news = Notification({META + "master_uname": "crm1", META + "promoted_uname": "crm2"})
    assert news.promoted == ("crm2",)


def test_an_empty_environment_says_nothing() -> None:
    news = Notification({})
    assert (news.type, news.operation, news.promoted, news.starting) == ("", "", (), ())
