"""SQLAlchemy over psycopg, asyncpg and pg8000: what it asks by itself, and an ORM."""

import sqlalchemy as sa
from checks import DSN, equal, main
from sqlalchemy import orm


def engine(driver):
    url = sa.URL.create(f"postgresql+{driver}", DSN["user"], DSN["password"], DSN["host"], DSN["port"], DSN["database"])
    return sa.create_engine(url)


class Base(orm.DeclarativeBase):
    pass


class Person(Base):
    __tablename__ = "sqlalchemy_person"
    id: orm.Mapped[int] = orm.mapped_column(primary_key=True)
    name: orm.Mapped[str]
    pet: orm.Mapped[str | None]


def work(driver):
    with_engine = engine(driver)
    Base.metadata.drop_all(with_engine)
    Base.metadata.create_all(with_engine)
    with orm.Session(with_engine) as session:
        session.add_all([Person(name=f"p{n}") for n in range(50)])
        session.commit()
        equal(session.scalar(sa.select(sa.func.count()).select_from(Person)), 50)
        person = session.scalars(sa.select(Person).where(Person.name == "p7")).one()
        person.pet = "newt"
        session.commit()
    inspector = sa.inspect(with_engine)
    equal([column["name"] for column in inspector.get_columns("sqlalchemy_person")], ["id", "name", "pet"])
    Base.metadata.drop_all(with_engine)


def check_psycopg():
    work("psycopg")


def check_psycopg2():
    work("psycopg2")


def check_pg8000():
    work("pg8000")


if __name__ == "__main__":
    main(globals())
